//! The changes to header fields on their way through.

use std::net::IpAddr;

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        CONNECTION, COOKIE, EXPECT, FORWARDED, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
        TRANSFER_ENCODING, UPGRADE,
    },
};

/// Turns a visitor's header into the one for the upstream.
///
/// We are the first hop that a platform trusts: a request's claims about earlier hops are replaced, not extended.
pub(crate) fn for_upstream(headers: &mut HeaderMap, visitor: IpAddr, host: &HeaderValue, is_upgrade: bool) {
    strip_hop_by_hop(headers);
    strip_untrusted(headers);
    // Answered here already, when the body was asked for.
    headers.remove(EXPECT);
    join_cookies(headers);
    headers.insert(HOST, host.clone());
    headers.insert(X_FORWARDED_HOST, host.clone());
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("https"));
    headers.insert(X_FORWARDED_FOR, text(&visitor.to_string()));
    headers.insert(FORWARDED, forwarded(visitor, host));
    if is_upgrade {
        upgrade(headers);
    }
}

/// Turns an upstream's header into the one for the visitor.
pub(crate) fn for_visitor(headers: &mut HeaderMap, is_upgrade: bool) {
    strip_hop_by_hop(headers);
    if is_upgrade {
        upgrade(headers);
    }
}

/// Whether the request asks for WebSocket (RFC 6455, 4.1). No other protocol is upgraded to: under h2c, requests would
/// pass by our checks.
pub(crate) fn wants_websocket(headers: &HeaderMap) -> bool {
    let has = |name, token: &str| tokens(headers, name).any(|found| found.eq_ignore_ascii_case(token));
    has(&CONNECTION, "upgrade") && has(&UPGRADE, "websocket") && headers.get_all(UPGRADE).iter().count() == 1
}

/// Removes what is meant for one connection only: the fields of RFC 9110, 7.6.1, and those that `Connection` names.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = tokens(headers, &CONNECTION).filter_map(|token| token.parse().ok()).collect();
    for name in named {
        // Naming these would take from the upstream what it must have.
        if name != HOST && name != http::header::CONTENT_LENGTH {
            headers.remove(name);
        }
    }
    HOP_BY_HOP.iter().for_each(|name| drop(headers.remove(name)));
}

/// Removes what an upstream would believe, and a visitor has no right to say.
///
/// CGI and WSGI read `X_Forwarded_For` as `X-Forwarded-For`: a name with an underscore could pass for one that we set
/// or remove.
fn strip_untrusted(headers: &mut HeaderMap) {
    UNTRUSTED.iter().for_each(|name| drop(headers.remove(name)));
    let is_untrusted = |name: &HeaderName| {
        let name = name.as_str();
        name.contains('_') || PROXIES_WORDS.iter().any(|beginning| name.starts_with(beginning))
    };
    let untrusted: Vec<HeaderName> = headers.keys().filter(|name| is_untrusted(name)).cloned().collect();
    untrusted.iter().for_each(|name| drop(headers.remove(name)));
}

fn upgrade(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

/// HTTP/2 may carry a cookie in pieces; HTTP/1.1 must not (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let pieces: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    // Joined values with "; " between them are a value again.
    if let Ok(joined) = HeaderValue::from_bytes(&pieces.join(b"; ".as_slice())) {
        headers.insert(COOKIE, joined);
    }
}

/// RFC 7239, 4. `host` has no quotes or backslashes: it was parsed.
fn forwarded(visitor: IpAddr, host: &HeaderValue) -> HeaderValue {
    let host = host.to_str().unwrap_or_default();
    match visitor {
        IpAddr::V4(address) => text(&format!("for={address};host=\"{host}\";proto=https")),
        IpAddr::V6(address) => text(&format!("for=\"[{address}]\";host=\"{host}\";proto=https")),
    }
}

/// A value of addresses and hosts, which are visible ASCII.
fn text(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Beginnings of the names of what only a proxy may say, and this one does not: where a request came from, what its target
/// was before somebody rewrote it, which client certificate was shown.
const PROXIES_WORDS: [&str; 9] =
    ["x-forwarded", "x-original-", "x-rewrite-", "x-real-", "x-remote-", "x-envoy-", "x-ssl-", "ssl-", "x-tls-"];

/// The same by their whole names; and `Proxy`, which CGI turns into a variable that programs obey, and `Trailer`, since
/// trailers do not pass.
const UNTRUSTED: [HeaderName; 23] = [
    HeaderName::from_static("client-cert"),
    HeaderName::from_static("client-cert-chain"),
    HeaderName::from_static("x-client-cert"),
    HeaderName::from_static("x-client-cert-chain"),
    HeaderName::from_static("x-client-dn"),
    HeaderName::from_static("x-client-verify"),
    HeaderName::from_static("x-client-ip"),
    HeaderName::from_static("x-cluster-client-ip"),
    HeaderName::from_static("client-ip"),
    HeaderName::from_static("true-client-ip"),
    HeaderName::from_static("fastly-client-ip"),
    HeaderName::from_static("cf-connecting-ip"),
    HeaderName::from_static("cf-connecting-ipv6"),
    HeaderName::from_static("x-azure-clientip"),
    HeaderName::from_static("x-azure-socketip"),
    HeaderName::from_static("x-host"),
    HeaderName::from_static("x-scheme"),
    HeaderName::from_static("x-url-scheme"),
    HeaderName::from_static("front-end-https"),
    HeaderName::from_static("remote-user"),
    HeaderName::from_static("remote-addr"),
    HeaderName::from_static("proxy"),
    TRAILER,
];

#[cfg(test)]
mod tests {
    use super::*;

    const VISITOR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

    #[test]
    fn what_a_visitor_says_about_earlier_hops_is_replaced() {
        let sent = rewritten(&[
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-for", "10.0.0.2"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-port", "80"),
            ("x-real-ip", "10.0.0.1"),
            ("x-client-ip", "10.0.0.1"),
            ("true-client-ip", "10.0.0.1"),
            ("cf-connecting-ip", "10.0.0.1"),
            ("x-original-url", "/admin"),
            ("x-rewrite-url", "/admin"),
            ("forwarded", "for=10.0.0.1"),
            ("proxy", "http://evil.example"),
        ]);
        assert_eq!(
            sent,
            [
                ("forwarded", "for=192.0.2.7;host=\"a.example:8443\";proto=https"),
                ("host", "a.example:8443"),
                ("x-forwarded-for", "192.0.2.7"),
                ("x-forwarded-host", "a.example:8443"),
                ("x-forwarded-proto", "https"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn what_only_a_proxy_may_say_does_not_pass() {
        for name in [
            "x-forwarded-prefix",
            "x-forwarded-ssl",
            "x-forwarded-scheme",
            "x-forwarded-user",
            "x-forwarded-client-cert",
            "x-forwarded-anything",
            "x-original-host",
            "x-original-forwarded-for",
            "x-real-ip",
            "x-client-cert",
            "client-cert",
            "ssl-client-cert",
            "ssl-client-verify",
            "x-ssl-client-s-dn",
            "x-envoy-external-address",
            "x-remote-user",
            "remote-user",
            "front-end-https",
            "trailer",
        ] {
            let sent = rewritten(&[(name, "1")]);
            assert!(sent.iter().all(|(found, _)| found != name), "{name}");
        }
        // The control: these names are the visitor's to set.
        for name in ["x-client-info", "x-requested-with", "x-csrf-token", "x-http-method-override", "sec-fetch-site"] {
            assert!(rewritten(&[(name, "1")]).contains(&(name.into(), "1".into())), "{name}");
        }
    }

    #[test]
    fn names_with_an_underscore_do_not_pass_for_others() {
        let sent = rewritten(&[("x_forwarded_for", "10.0.0.1"), ("x-real_ip", "10.0.0.1"), ("accept-x", "1")]);
        assert!(sent.iter().all(|(name, _)| !name.contains('_')), "{sent:?}");
        assert!(sent.contains(&("accept-x".into(), "1".into())), "{sent:?}");
    }

    #[test]
    fn an_ipv6_visitor_is_quoted() {
        let value = forwarded("2001:db8::1".parse().unwrap(), &HeaderValue::from_static("a.example"));
        assert_eq!(value, "for=\"[2001:db8::1]\";host=\"a.example\";proto=https");
    }

    #[test]
    fn what_is_for_one_hop_only_does_not_pass() {
        let sent = rewritten(&[
            ("connection", "keep-alive, X-Secret"),
            ("connection", "close, host"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "close"),
            ("proxy-authorization", "x"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("expect", "100-continue"),
            ("accept", "text/html"),
            ("authorization", "Basic x"),
        ]);
        let names: Vec<&str> = sent.iter().map(|(name, _)| name.as_str()).collect();
        let ours = ["forwarded", "host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];
        assert_eq!(names, [&["accept", "authorization"], &ours[..]].concat());
    }

    #[test]
    fn websocket_passes_and_no_other_upgrade() {
        let sent = rewritten(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")]);
        assert!(sent.contains(&("connection".into(), "upgrade".into())));
        assert!(sent.contains(&("upgrade".into(), "websocket".into())));
        for other in [
            &[("connection", "upgrade"), ("upgrade", "h2c")][..],
            &[("connection", "close"), ("upgrade", "websocket")],
            &[("connection", "upgrade"), ("upgrade", "websocket"), ("upgrade", "h2c")],
        ] {
            assert!(!rewritten(other).iter().any(|(name, _)| name == "upgrade"), "{other:?}");
        }
    }

    #[test]
    fn a_cookie_in_pieces_is_joined() {
        let sent = rewritten(&[("cookie", "a=1"), ("cookie", "b=2; c=3")]);
        assert!(sent.contains(&("cookie".into(), "a=1; b=2; c=3".into())), "{sent:?}");
    }

    #[test]
    fn responses_keep_what_is_for_the_visitor() {
        let mut headers = map(&[
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "1"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
        ]);
        for_visitor(&mut headers, false);
        assert_eq!(listed(&headers), [("set-cookie".into(), "a=1".into()), ("set-cookie".into(), "b=2".into())]);
    }

    fn rewritten(fields: &[(&'static str, &'static str)]) -> Vec<(String, String)> {
        let mut headers = map(fields);
        let is_upgrade = wants_websocket(&headers);
        for_upstream(&mut headers, VISITOR, &HeaderValue::from_static("a.example:8443"), is_upgrade);
        listed(&headers)
    }

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn listed(headers: &HeaderMap) -> Vec<(String, String)> {
        let mut listed: Vec<_> =
            headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
        listed.sort();
        listed
    }
}
