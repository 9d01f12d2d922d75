//! Owns the keys that tokens are checked with, each bound to one algorithm by its type. Never takes an algorithm from a token
//! (RFC 8725 section 3.1). Read-only after construction; lives on whichever thread verifies.

use jsonwebtoken::{Algorithm as Library, DecodingKey};

use super::AuthFault;

/// The signature algorithms that can be allowed. `none` does not exist here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    Hs256,
    Rs256,
    Es256,
    EdDsa,
}

impl Algorithm {
    pub const ALL: [Algorithm; 4] = [Algorithm::Hs256, Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa];

    /// The exact name in a token's header (RFC 7518 section 3.1, RFC 8037 section 3.1) and in `auth.algorithms`.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Hs256 => "HS256",
            Algorithm::Rs256 => "RS256",
            Algorithm::Es256 => "ES256",
            Algorithm::EdDsa => "EdDSA",
        }
    }

    /// Reads the exact name; other spellings are other algorithms, so they are none of ours.
    pub fn from_name(name: &str) -> Result<Algorithm, AuthFault> {
        Algorithm::known(name).ok_or_else(|| AuthFault::UnknownAlgorithm(name.chars().take(32).collect()))
    }

    pub(super) fn known(name: &str) -> Option<Algorithm> {
        Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    pub(super) fn library(self) -> Library {
        match self {
            Algorithm::Hs256 => Library::HS256,
            Algorithm::Rs256 => Library::RS256,
            Algorithm::Es256 => Library::ES256,
            Algorithm::EdDsa => Library::EdDSA,
        }
    }
}

/// One key and the only algorithm it may be used with.
pub(super) struct Key {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl Key {
    /// A shared secret; good for HS256 and nothing else.
    pub(super) fn secret(secret: &[u8]) -> Result<Key, AuthFault> {
        if secret.is_empty() {
            return Err(AuthFault::EmptySecret);
        }
        Ok(Key { algorithm: Algorithm::Hs256, key: DecodingKey::from_secret(secret) })
    }

    /// A public key in PEM; its type decides the algorithm. `index` counts from 1, for the message.
    pub(super) fn public(pem: &str, index: usize) -> Result<Key, AuthFault> {
        let bad = |reason| AuthFault::BadKey { index, reason };
        if pem.contains("PRIVATE KEY-----") {
            return Err(bad("it is a private key; give the public half (openssl pkey -pubout)"));
        }
        if !pem.contains("PUBLIC KEY-----") {
            return Err(bad("it is not a PEM public key (it must begin with -----BEGIN PUBLIC KEY-----)"));
        }
        if let Ok(key) = DecodingKey::from_rsa_pem(pem.as_bytes()) {
            // The length of the DER form follows the modulus: 140 bytes for 1024 bits, 270 for 2048, 526 for 4096.
            return match key.try_get_as_bytes().map(<[u8]>::len) {
                Ok(RSA_DER_BYTES_MIN..=RSA_DER_BYTES_MAX) => Ok(Key { algorithm: Algorithm::Rs256, key }),
                _ => Err(bad("RSA keys must have 2048 to 4096 bits")),
            };
        }
        if let Ok(key) = DecodingKey::from_ed_pem(pem.as_bytes()) {
            return match key.try_get_as_bytes().map(<[u8]>::len) {
                Ok(32) => Ok(Key { algorithm: Algorithm::EdDsa, key }),
                _ => Err(bad("an Ed25519 key has 32 bytes")),
            };
        }
        if let Ok(key) = DecodingKey::from_ec_pem(pem.as_bytes()) {
            let key = Key { algorithm: Algorithm::Es256, key };
            // The curve is only looked at when a signature is checked, so one is checked now.
            return match jsonwebtoken::crypto::verify("AA", b"", &key.key, key.algorithm.library()) {
                Ok(_) => Ok(key),
                Err(_) => Err(bad("elliptic curve keys must be on P-256 (prime256v1)")),
            };
        }
        Err(bad("its type is not supported; use RSA, P-256 or Ed25519"))
    }

    /// From the modulus and exponent of a published key (RFC 7518 section 6.3.1), the length judged already.
    pub(super) fn rsa(modulus: &str, exponent: &str) -> Option<Key> {
        DecodingKey::from_rsa_components(modulus, exponent).ok().and_then(|key| Key::working(Algorithm::Rs256, key))
    }

    /// From the coordinates of a published key (RFC 7518 section 6.2.1).
    pub(super) fn p256(x: &str, y: &str) -> Option<Key> {
        DecodingKey::from_ec_components(x, y).ok().and_then(|key| Key::working(Algorithm::Es256, key))
    }

    /// From a published key (RFC 8037 section 2).
    pub(super) fn ed25519(x: &str) -> Option<Key> {
        DecodingKey::from_ed_components(x).ok().and_then(|key| Key::working(Algorithm::EdDsa, key))
    }

    /// None when the key turns out to be none as soon as a signature is checked with it.
    fn working(algorithm: Algorithm, key: DecodingKey) -> Option<Key> {
        let tried = jsonwebtoken::crypto::verify("AA", b"", &key, algorithm.library());
        tried.is_ok().then_some(Key { algorithm, key })
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// True when `signature` (base64url) over `message` was made with this key. Constant time where the secret is ours.
    pub(super) fn signed(&self, message: &str, signature: &str) -> bool {
        matches!(jsonwebtoken::crypto::verify(signature, message.as_bytes(), &self.key, self.algorithm.library()), Ok(true))
    }
}

const RSA_DER_BYTES_MIN: usize = 265;
const RSA_DER_BYTES_MAX: usize = 530;
