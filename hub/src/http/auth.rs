//! Who asks: the bearer token of `api-token`, compared in constant time; and which host name the
//! request was sent to.

use std::fmt;
use std::net::IpAddr;

use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderValue};

use super::error::ApiError;

/// Where a browser's request comes from: `none` is a person who typed the address.
const FETCH_SITE: &str = "sec-fetch-site";

/// The token that state-changing calls need. Only its hash is kept; Debug shows nothing.
#[derive(Clone)]
pub struct ApiToken(blake3::Hash);

impl ApiToken {
    /// The hash of a token.
    #[must_use]
    pub fn new(token: &str) -> Self {
        Self(blake3::hash(token.trim().as_bytes()))
    }
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiToken(redacted)")
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// No token was given.
    Anonymous,
    /// The token was given.
    Authorised,
}

impl Caller {
    /// Passes only with the token.
    ///
    /// # Errors
    /// LS0250 without it.
    pub fn authorised(self) -> Result<(), ApiError> {
        match self {
            Self::Authorised => Ok(()),
            Self::Anonymous => Err(ApiError::unauthorised("this call needs the hub's token")),
        }
    }
}

/// Judges the Authorization header. A wrong token is refused also where none is needed.
pub(super) fn caller(headers: &HeaderMap, token: &ApiToken) -> Result<Caller, ApiError> {
    let Some(value) = headers.get(AUTHORIZATION) else { return Ok(Caller::Anonymous) };
    let given = value.to_str().ok().and_then(|value| {
        let (scheme, given) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| given.trim())
    });
    let Some(given) = given else {
        return Err(ApiError::unauthorised("the Authorization header is not `Bearer <token>`"));
    };
    // blake3::Hash compares in constant time, and a hash tells nothing about its neighbours.
    if blake3::hash(given.as_bytes()) == token.0 {
        Ok(Caller::Authorised)
    } else {
        Err(ApiError::unauthorised("the token is not the one of this hub"))
    }
}

/// Refuses what a web page could send: a foreign host name that resolves to the loopback (DNS
/// rebinding), and requests of other origins.
pub(super) fn check_host(headers: &HeaderMap, allowed: &[String]) -> Result<(), ApiError> {
    // Browsers name the origin of what may change something, and the relation to it of everything else.
    let site = headers.get(FETCH_SITE).map(HeaderValue::as_bytes);
    if headers.contains_key(ORIGIN) || site.is_some_and(|site| site != b"none") {
        return Err(ApiError::foreign("it was sent by a web page"));
    }
    let Some(host) = headers.get(HOST).and_then(|host| host.to_str().ok()) else {
        return Err(ApiError::foreign("it has no Host header"));
    };
    let name = if let Some(rest) = host.strip_prefix('[') {
        rest.split(']').next().unwrap_or_default()
    } else {
        host.split(':').next().unwrap_or_default()
    };
    let known = name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok()
        || allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(name));
    if known {
        Ok(())
    } else {
        Err(ApiError::foreign(&format!("host name `{}` is not one of this hub's", name.escape_default())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: axum::http::HeaderName, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        headers
    }

    #[test]
    fn only_the_token_authorises_and_it_is_never_shown() {
        let token = ApiToken::new("s3cret\n");
        let ask = |value: &str| caller(&headers(AUTHORIZATION, value), &token);
        assert_eq!(ask("Bearer s3cret").unwrap(), Caller::Authorised);
        assert_eq!(ask("bearer s3cret").unwrap(), Caller::Authorised);
        assert_eq!(ask("Bearer s3cres").unwrap_err().code(), "LS0250");
        assert_eq!(ask("Basic s3cret").unwrap_err().code(), "LS0250");
        assert_eq!(caller(&HeaderMap::new(), &token).unwrap(), Caller::Anonymous);
        assert!(Caller::Anonymous.authorised().is_err());
        assert!(!format!("{token:?}").contains("s3cret"));
    }

    #[test]
    fn foreign_host_names_and_web_pages_are_refused() {
        let allowed = vec!["hub.example".to_owned()];
        for good in ["127.0.0.1:7441", "localhost", "LOCALHOST:1", "[::1]:7441", "hub.example:7441"] {
            assert!(check_host(&headers(HOST, good), &allowed).is_ok(), "{good}");
        }
        for bad in ["evil.example:7441", "", "127.0.0.1.evil.example"] {
            assert!(check_host(&headers(HOST, bad), &allowed).is_err(), "{bad}");
        }
        let mut page = headers(HOST, "127.0.0.1");
        page.insert(ORIGIN, "https://evil.example".parse().unwrap());
        assert_eq!(check_host(&page, &allowed).unwrap_err().code(), "LS0261");
        for (site, taken) in [("none", true), ("cross-site", false), ("same-site", false)] {
            let mut page = headers(HOST, "127.0.0.1");
            page.insert(FETCH_SITE, site.parse().unwrap());
            assert_eq!(check_host(&page, &allowed).is_ok(), taken, "{site}");
        }
    }
}
