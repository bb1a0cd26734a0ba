//! Answers of our own: short texts for people.

use axum::body::Body;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, HeaderName},
};

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

/// The answer with one more field.
pub(crate) fn with(mut response: Response<Body>, name: HeaderName, value: HeaderValue) -> Response<Body> {
    response.headers_mut().insert(name, value);
    response
}
