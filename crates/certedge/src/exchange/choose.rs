//! Which site a request is for.

use std::sync::Arc;

use certseal_wire::{DnsName, Route};
use http::StatusCode;

/// Where a request goes that came over a connection for `server_name` and is for `host`.
///
/// # Errors
/// 404 where no site has that host, 421 where it belongs to another site than the connection (RFC 9110, 15.5.20).
pub(crate) fn destination(
    route: impl Fn(&DnsName) -> Option<Arc<Route>>,
    server_name: &DnsName,
    host: Option<&DnsName>,
) -> Result<Arc<Route>, StatusCode> {
    let host = host.ok_or(StatusCode::NOT_FOUND)?;
    let found = route(host).ok_or(StatusCode::NOT_FOUND)?;
    if host == server_name || route(server_name).is_some_and(|shown| shown.site == found.site) {
        return Ok(found);
    }
    Err(StatusCode::MISDIRECTED_REQUEST)
}

#[cfg(test)]
mod tests {
    use certseal_wire::HttpsMode;

    use super::*;

    #[test]
    fn a_request_goes_to_the_site_of_its_connection_only() {
        let routes = [("a.example", &["a.example", "www.a.example"][..]), ("b.example", &["b.example"])];
        let route = |name: &DnsName| {
            let (site, names) = routes.iter().find(|(_, names)| names.contains(&name.as_str()))?;
            Some(Arc::new(Route {
                site: site.parse().unwrap(),
                names: names.iter().map(|name| name.parse().unwrap()).collect::<Vec<_>>().try_into().unwrap(),
                version: 1,
                pools: Vec::new(),
                upstreams: Vec::new(),
                https: HttpsMode::Redirect,
            }))
        };
        let to = |server_name: &str, host: &str| {
            let host = host.parse().ok();
            destination(route, &server_name.parse().unwrap(), host.as_ref()).map(|route| route.site.to_string())
        };
        assert_eq!(to("a.example", "a.example"), Ok("a.example".into()));
        assert_eq!(to("a.example", "www.a.example"), Ok("a.example".into()));
        assert_eq!(to("a.example", "b.example"), Err(StatusCode::MISDIRECTED_REQUEST));
        assert_eq!(to("a.example", "c.example"), Err(StatusCode::NOT_FOUND));
        assert_eq!(to("a.example", "127.0.0.1"), Err(StatusCode::NOT_FOUND));
        assert_eq!(to("c.example", "a.example"), Err(StatusCode::MISDIRECTED_REQUEST));
    }
}
