//! Owns the reading of a set of public keys as an issuer publishes it (JWKS, RFC 7517). Never fetches it, and takes nothing from
//! it but keys that signatures can be checked with. Read-only after construction; lives on whichever thread verifies.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::Algorithm;
use super::keys::Key;

/// Public keys by the name that tokens call them by. The type of each decides its algorithm.
pub struct KeySet {
    keys: Vec<Published>,
}

struct Published {
    /// `kid`: only ever compared.
    name: Option<String>,
    key: Key,
}

/// Why a set cannot be used. What was in use before stays in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetFault {
    #[error("it is no JSON object with a list of keys")]
    NotASet,
    #[error("none of its keys can be used: RSA of 2048 to 4096 bits, P-256 and Ed25519 can, where auth.algorithms allows them")]
    NoKeys,
    #[error("it has more than {KEYS_MAX} keys")]
    TooManyKeys,
}

impl KeySet {
    /// Reads a set. Keys for other purposes, of other types or for algorithms that are not `allowed` are left out.
    pub fn parse(json: &[u8], allowed: &[Algorithm]) -> Result<KeySet, KeySetFault> {
        let set: RawSet = serde_json::from_slice(json).map_err(|_| KeySetFault::NotASet)?;
        if set.keys.len() > KEYS_MAX {
            return Err(KeySetFault::TooManyKeys);
        }
        let usable = set.keys.into_iter().filter_map(|key| serde_json::from_value(key).ok().and_then(RawKey::usable));
        let keys: Vec<Published> = usable.filter(|published| allowed.contains(&published.key.algorithm())).collect();
        if keys.is_empty() { Err(KeySetFault::NoKeys) } else { Ok(KeySet { keys }) }
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Keys that a token may mean: those of this name; all of them when the token names none.
    pub(super) fn candidates<'s>(&'s self, algorithm: Algorithm, name: Option<&'s str>) -> impl Iterator<Item = &'s Key> {
        let meant = move |published: &&Published| {
            published.key.algorithm() == algorithm && (name.is_none() || published.name.as_deref() == name)
        };
        self.keys.iter().filter(meant).take(TRIED_MAX).map(|published| &published.key)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.keys.iter().any(|published| published.name.as_deref() == Some(name))
    }
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "KeySet({} keys)", self.keys.len())
    }
}

#[derive(Deserialize)]
struct RawSet {
    keys: Vec<serde_json::Value>,
}

/// The members of a key that matter here (RFC 7517 section 4, RFC 7518 section 6, RFC 8037 section 2).
#[derive(Deserialize)]
struct RawKey {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl RawKey {
    /// None: not a key that we check signatures with. A shared secret (`oct`) has no place in what is published.
    fn usable(self) -> Option<Published> {
        if self.purpose.as_deref().is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        let key = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => {
                let (modulus, exponent) = (self.n?, self.e?);
                if !(RSA_MODULUS_BYTES_MIN..=RSA_MODULUS_BYTES_MAX).contains(&length(&modulus)?) || length(&exponent)? > 8 {
                    return None;
                }
                Key::rsa(&modulus, &exponent)
            }
            // Lengths are looked at first: the library takes them for granted.
            ("EC", Some("P-256")) => {
                let (x, y) = (self.x?, self.y?);
                if (length(&x)?, length(&y)?) == (COORDINATE_BYTES, COORDINATE_BYTES) { Key::p256(&x, &y) } else { None }
            }
            ("OKP", Some("Ed25519")) => {
                let x = self.x?;
                if length(&x)? == COORDINATE_BYTES { Key::ed25519(&x) } else { None }
            }
            _ => None,
        }?;
        if self.alg.is_some_and(|named| named != key.algorithm().name()) {
            return None;
        }
        Some(Published { name: self.kid, key })
    }
}

/// Bytes of a member that is written in base64url.
fn length(member: &str) -> Option<usize> {
    URL_SAFE_NO_PAD.decode(member).ok().map(|bytes| bytes.len())
}

const KEYS_MAX: usize = 64;
/// A token without `kid` is tried with so many keys at most: their number is what a bad token costs.
const TRIED_MAX: usize = 16;
const RSA_MODULUS_BYTES_MIN: usize = 256;
const RSA_MODULUS_BYTES_MAX: usize = 512;
const COORDINATE_BYTES: usize = 32;
