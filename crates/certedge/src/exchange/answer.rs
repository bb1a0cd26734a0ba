//! Answers of our own: short texts for people.

use axum::body::Body;
use http::{
    HeaderValue, Response, StatusCode, Version,
    header::{CONTENT_TYPE, HeaderName, RETRY_AFTER},
};

use crate::exchange::admission::Over;

/// A status with a line of text.
pub(crate) fn text(status: StatusCode, line: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(line));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// A refusal, with the line that goes with its status.
pub(crate) fn refusal(status: StatusCode) -> Response<Body> {
    text(
        status,
        match status {
            StatusCode::BAD_REQUEST => "the request does not say in one way which host it is for\n",
            StatusCode::NOT_FOUND => "there is no such site here\n",
            StatusCode::MISDIRECTED_REQUEST => "this connection is for another site\n",
            StatusCode::NOT_IMPLEMENTED => "this method is not passed on\n",
            StatusCode::BAD_GATEWAY => "the server behind this site cannot be reached\n",
            StatusCode::GATEWAY_TIMEOUT => "the server behind this site does not answer\n",
            StatusCode::SERVICE_UNAVAILABLE => "too busy now, try again\n",
            _ => "\n",
        },
    )
}

/// A refusal for who has too much under way, or whose site has.
///
/// Without a body over HTTP/2, where it could be left unread: this answer has no place that bounds how many there are.
pub(crate) fn busy(over: Over, version: Version) -> Response<Body> {
    let (status, line) = match over {
        Over::Address => {
            (StatusCode::TOO_MANY_REQUESTS, "too many requests from your address are under way, try again\n")
        }
        Over::Site => (StatusCode::SERVICE_UNAVAILABLE, "this site is too busy now, try again\n"),
        Over::All => (StatusCode::SERVICE_UNAVAILABLE, "too busy now, try again\n"),
    };
    let mut response = text(status, line);
    if version == Version::HTTP_2 {
        *response.body_mut() = Body::empty();
    }
    with(response, RETRY_AFTER, HeaderValue::from_static(RETRY_SECONDS))
}

/// A refusal for who was shown the certificate for names that have none.
pub(crate) fn no_certificate() -> Response<Body> {
    let line = "there is no certificate for this name, or none yet: try again\n";
    let response = text(StatusCode::SERVICE_UNAVAILABLE, line);
    with(response, RETRY_AFTER, HeaderValue::from_static(RETRY_SECONDS))
}

/// The answer with one more field.
pub(crate) fn with(mut response: Response<Body>, name: HeaderName, value: HeaderValue) -> Response<Body> {
    response.headers_mut().insert(name, value);
    response
}

/// When to try again what was refused for being too much.
pub(crate) const RETRY_SECONDS: &str = "5";
