//! Owns the decision who may use `/v1`, and from which pages a browser may. Never logs or compares a key in a way that tells
//! anything about it. Immutable; lives on the control thread.
//!
//! With `admin.api_key` set, a request carries it in `X-API-Key` or `Authorization: Bearer`; a key in the query is not even
//! looked at. Without one, everything is refused, but for `--dev`: there a request is let in when it comes from this machine,
//! asks for a local host name (so that a foreign name that was pointed here does not do) and is not made by a foreign page.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderName, header};
use subtle::ConstantTimeEq;

use super::ControlFault;
use super::answer::RestFault;
use crate::types::ErrorName;

pub(super) struct Access {
    rule: Rule,
    origins: Vec<String>,
    local_origins: bool,
}

enum Rule {
    Key(Vec<u8>),
    /// No key, `--dev`.
    ThisMachine,
    Nobody,
}

impl Access {
    pub(super) fn new(key: Option<String>, dev: bool, origins: Vec<String>) -> Result<Access, ControlFault> {
        let rule = match key {
            Some(key) if key.is_empty() => return Err(ControlFault::EmptyKey),
            Some(key) => Rule::Key(key.into_bytes()),
            None if dev => Rule::ThisMachine,
            None => Rule::Nobody,
        };
        Ok(Access { rule, origins, local_origins: dev })
    }

    /// Lets a request in or says what it lacks.
    pub(super) fn check(&self, headers: &HeaderMap, peer: SocketAddr) -> Result<(), RestFault> {
        match &self.rule {
            Rule::Key(key) => match presented(headers) {
                Some(given) if bool::from(given.ct_eq(key)) => Ok(()),
                _ => Err(refusal("give the key of admin.api_key as X-API-Key, or as Authorization: Bearer")),
            },
            Rule::ThisMachine if peer.ip().to_canonical().is_loopback() && self.local_page(headers) => Ok(()),
            Rule::ThisMachine => Err(refusal("without admin.api_key only this machine is let in: set admin.api_key")),
            Rule::Nobody => Err(refusal("no request is accepted here until admin.api_key is set in the configuration")),
        }
    }

    /// True when a page from `origin` may read answers (admin.cors_origins; any localhost with `--dev`).
    pub(super) fn origin_allowed(&self, origin: &str) -> bool {
        self.origins.iter().any(|allowed| allowed == origin) || (self.local_origins && local_origin(origin))
    }

    fn local_page(&self, headers: &HeaderMap) -> bool {
        let host = single(headers, &header::HOST).and_then(|host| std::str::from_utf8(host).ok());
        let page_is_ours = match headers.get(header::ORIGIN) {
            None => true,
            Some(origin) => origin.to_str().is_ok_and(|origin| self.origin_allowed(origin)),
        };
        host.is_some_and(local_host) && page_is_ours
    }
}

/// The key that the request carries, if exactly one.
fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    if headers.contains_key(API_KEY) {
        return single(headers, &API_KEY);
    }
    let value = single(headers, &header::AUTHORIZATION)?;
    let (scheme, key) = value.split_at_checked(BEARER.len())?;
    scheme.eq_ignore_ascii_case(BEARER).then_some(key)
}

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Some(value.as_bytes()),
        _ => None,
    }
}

fn local_origin(origin: &str) -> bool {
    origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")).is_some_and(local_host)
}

/// `localhost`, or an address of the loopback, with or without a port.
fn local_host(host: &str) -> bool {
    if let Ok(address) = host.parse::<SocketAddr>() {
        return address.ip().is_loopback();
    }
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn refusal(message: &'static str) -> RestFault {
    RestFault::new(ErrorName::Unauthenticated, message)
}

pub(super) const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const BEARER: &[u8] = b"Bearer ";

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())).collect()
    }

    fn allowed(access: &Access, pairs: &[(&'static str, &str)], peer: &str) -> bool {
        access.check(&headers(pairs), peer.parse().unwrap()).is_ok()
    }

    const LOCAL: &str = "127.0.0.1:5000";
    const FOREIGN: &str = "192.0.2.7:5000";

    #[test]
    fn exactly_the_key_opens() {
        let access = Access::new(Some("correct horse".into()), true, vec![]).unwrap();
        assert!(allowed(&access, &[("x-api-key", "correct horse")], FOREIGN));
        assert!(allowed(&access, &[("authorization", "Bearer correct horse")], FOREIGN));
        assert!(allowed(&access, &[("authorization", "bearer correct horse")], FOREIGN));
        let long = "x".repeat(1 << 20);
        for wrong in ["", "correct hors", "correct horse ", "Correct horse", "correct horsex", &long] {
            assert!(!allowed(&access, &[("x-api-key", wrong)], LOCAL));
            assert!(!allowed(&access, &[("authorization", &format!("Bearer {wrong}"))], LOCAL));
        }
        assert!(!allowed(&access, &[], LOCAL), "a key that is set is needed with --dev too");
        assert!(!allowed(&access, &[("authorization", "correct horse")], LOCAL));
        assert!(!allowed(&access, &[("authorization", "Basic correct horse")], LOCAL));
        assert!(!allowed(&access, &[("x-api-key", "no"), ("authorization", "Bearer correct horse")], LOCAL));
        let mut twice = headers(&[("x-api-key", "correct horse")]);
        twice.append(API_KEY, HeaderValue::from_static("correct horse"));
        assert!(access.check(&twice, LOCAL.parse().unwrap()).is_err());
    }

    #[test]
    fn without_a_key_nobody_is_let_in_and_told_why() {
        let access = Access::new(None, false, vec![]).unwrap();
        for pairs in [&[][..], &[("x-api-key", "")], &[("x-api-key", "a"), ("host", "localhost")]] {
            let fault = access.check(&headers(pairs), LOCAL.parse().unwrap()).unwrap_err();
            assert!(fault.message().contains("admin.api_key"));
        }
        assert!(matches!(Access::new(Some(String::new()), true, vec![]), Err(ControlFault::EmptyKey)));
    }

    #[test]
    fn dev_lets_this_machine_in_but_no_foreign_page() {
        let access = Access::new(None, true, vec!["https://ops.example".into()]).unwrap();
        for host in ["localhost", "localhost:8081", "127.0.0.1:8081", "[::1]:8081", "LOCALHOST"] {
            assert!(allowed(&access, &[("host", host)], LOCAL), "{host}");
            assert!(!allowed(&access, &[("host", host)], FOREIGN), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8081", "", "192.0.2.7", "localhost:x"] {
            assert!(!allowed(&access, &[("host", host)], LOCAL), "{host}");
        }
        assert!(!allowed(&access, &[], LOCAL));
        assert!(allowed(&access, &[("host", "localhost")], "[::1]:5000"));
        assert!(allowed(&access, &[("host", "localhost")], "[::ffff:127.0.0.1]:5000"));
        for (origin, fine) in [
            ("http://localhost:3000", true),
            ("https://ops.example", true),
            ("https://evil.example", false),
            ("http://localhost.evil.example", false),
            ("null", false),
        ] {
            assert_eq!(allowed(&access, &[("host", "localhost"), ("origin", origin)], LOCAL), fine, "{origin}");
        }
    }

    #[test]
    fn origins_are_compared_exactly() {
        let access = Access::new(None, false, vec!["https://ops.example".into()]).unwrap();
        assert!(access.origin_allowed("https://ops.example"));
        for wrong in ["http://ops.example", "https://ops.example:444", "https://ops.example.evil", "http://localhost", "null"] {
            assert!(!access.origin_allowed(wrong), "{wrong}");
        }
    }
}
