use super::*;

#[test]
fn the_ca_names_no_host_outside_the_order() {
    let names = ["shop.example.com", "www.example.com"].map(|name| name.parse().unwrap());
    let names = NameSet::try_from(names.to_vec()).unwrap();
    assert_eq!(ordered("www.example.com", &names).unwrap().as_str(), "www.example.com");
    for other in ["bank.example", "example.com", "a.www.example.com", "*.example.com", "", "not a name"] {
        let failure = ordered(other, &names).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Rejected, "{other}");
        assert!(failure.detail.contains("not a name of the order"), "{}", failure.detail);
    }
}
