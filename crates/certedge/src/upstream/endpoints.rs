//! Which of a site's servers a request goes to. Pure: the caller counts the requests.

use certseal_wire::Endpoint;

/// The server whose turn it is: of as many requests in a row as all weights sum up to, each server has its weight.
pub(crate) fn in_turn(upstreams: &[Endpoint], turn: u64) -> Option<&Endpoint> {
    let weight = |upstream: &Endpoint| u64::from(upstream.weight.get());
    let mut place = turn % upstreams.iter().map(weight).sum::<u64>().max(1);
    upstreams.iter().find(|upstream| {
        let is_here = place < weight(upstream);
        place = place.saturating_sub(weight(upstream));
        is_here
    })
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;

    #[test]
    fn each_server_has_its_weight_of_the_requests() {
        let endpoint = |host: &str, weight| Endpoint {
            origin: format!("http://{host}:80").parse().unwrap(),
            weight: NonZeroU16::new(weight).unwrap(),
            server_name: None,
        };
        let upstreams = [endpoint("a", 3), endpoint("b", 1), endpoint("c", 2)];
        let mut counts = [0; 3];
        for turn in 0..60 {
            let chosen = in_turn(&upstreams, turn).unwrap();
            counts[upstreams.iter().position(|upstream| upstream == chosen).unwrap()] += 1;
        }
        assert_eq!(counts, [30, 10, 20]);
        assert_eq!(in_turn(&[], 7), None);
    }
}
