//! Checks the verifier: whatever it accepts was signed, by `jsonwebtoken`'s reading with that one key, and says what serde_json
//! reads in it; nothing else is accepted.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm as Library, DecodingKey, EncodingKey};
use serde_json::Value;

use super::input::Input;
use crate::auth::{Algorithm, AuthRules, KeySet, TokenFault, Verifier};
use crate::types::Millis;

/// How the token is made, or that a key set comes; then the token itself, or a header and claims that are to be signed, with a
/// zero byte between them.
pub fn check(input: &[u8]) {
    let mut input = Input::new(input);
    let how = input.byte();
    if how == KEY_SET {
        return key_set(input.rest());
    }
    if how & 1 == 0 {
        let token = String::from_utf8_lossy(input.rest()).into_owned();
        return judge(&token);
    }
    let flip = input.number() as usize;
    let (header, claims) = split(input.rest());
    let (encoding, algorithm) = match (how >> 1) & 7 {
        0 => (&KEYS.es256, Library::ES256),
        1 => (&KEYS.ed25519, Library::EdDSA),
        2 => (&KEYS.stranger, Library::HS256),
        _ => (&KEYS.secret, Library::HS256),
    };
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), encoding, algorithm).expect("the key fits the algorithm");
    let token = format!("{message}.{signature}");
    judge(&token);
    if std::ptr::eq(encoding, &KEYS.stranger) {
        assert!(KEYS.verifier.verify(&token, NOW).is_err(), "signed by nobody we know");
    }
    // Any other byte in any place makes it another token.
    let mut bent = token.into_bytes();
    let at = flip % bent.len();
    bent[at] = if bent[at] == b'A' { b'B' } else { b'A' };
    let bent = String::from_utf8(bent).expect("a token is ASCII");
    assert!(KEYS.verifier.verify(&bent, NOW).is_err(), "{bent}");
}

/// A set of keys as somebody publishes it: read without panic, and what is read can be used without one.
fn key_set(json: &[u8]) {
    let Ok(set) = KeySet::parse(json, &Algorithm::ALL) else { return };
    assert!(!set.is_empty() && set.len() <= 64);
    let verifier = Verifier::new(AuthRules { key_set: true, ..AuthRules::default() }).expect("a set will be given");
    verifier.publish(set);
    for (algorithm, bytes) in [("RS256", 256), ("ES256", 64), ("EdDSA", 64)] {
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{algorithm}"}}"#));
        let token = format!("{header}.e30.{}", URL_SAFE_NO_PAD.encode(vec![0; bytes]));
        // Whether zeros are a signature is the issuer's affair, who could publish a key for which they are.
        let _ = verifier.verify(&token, NOW);
    }
}

fn split(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes.iter().position(|byte| *byte == 0) {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (br#"{"alg":"HS256","typ":"JWT"}"#, bytes),
    }
}

fn judge(token: &str) {
    let identity = match KEYS.verifier.verify(token, NOW) {
        Ok(identity) => identity,
        Err(TokenFault::Bad(reason)) => return assert!(!reason.is_empty() && reason.len() < 128),
        Err(TokenFault::Expired) => return,
        Err(TokenFault::Revoked) => panic!("the verifier knows no list of revoked tokens"),
    };
    let parts: Vec<&str> = token.split('.').collect();
    let [header, claims, signature] = parts[..] else { panic!("a token has three parts") };
    let (Some(header), Some(claims)) = (read(header), read(claims)) else { return };
    let (algorithm, key) = match header["alg"].as_str() {
        Some("HS256") => (Library::HS256, &KEYS.secret_public),
        Some("ES256") => (Library::ES256, &KEYS.es256_public),
        Some("EdDSA") => (Library::EdDSA, &KEYS.ed25519_public),
        other => panic!("{other:?} was not configured, or is nobody's here"),
    };
    let message = &token[..token.len() - signature.len() - 1];
    let signed = jsonwebtoken::crypto::verify(signature, message.as_bytes(), key, algorithm);
    assert!(matches!(signed, Ok(true)), "it was not signed: {signed:?}");
    assert_eq!(claims["sub"], identity.user.as_str());
    assert_eq!(claims["exp"].as_u64().map(|seconds| seconds * 1_000), identity.expires_at.map(|at| at.0));
    assert!(identity.expires_at.is_some_and(|at| at > NOW), "expired, or for ever");
    assert!(claims["nbf"].as_u64().unwrap_or(0) * 1_000 <= NOW.0);
    assert_eq!(claims.get("device_id").map(|id| id.as_str()), identity.device.as_ref().map(|id| Some(id.as_str())));
    assert_eq!(claims.get("jti").map(|id| id.as_str()), identity.token_id.as_deref().map(Some));
}

/// None for escapes of half a character in what nobody looks at: that is JSON, but no text that could be kept.
fn read(part: &str) -> Option<Value> {
    let json = URL_SAFE_NO_PAD.decode(part).expect("what is accepted is base64url");
    let json = String::from_utf8(json).expect("what is accepted is text");
    match serde_json::from_str(&json) {
        Err(fault) if !json.contains("\\u") => panic!("what is accepted is JSON: {fault}"),
        read => read.ok(),
    }
}

struct Keys {
    verifier: Verifier,
    secret: EncodingKey,
    stranger: EncodingKey,
    es256: EncodingKey,
    ed25519: EncodingKey,
    secret_public: DecodingKey,
    es256_public: DecodingKey,
    ed25519_public: DecodingKey,
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let pem = "the key of a test can be read";
    let rules = AuthRules {
        algorithms: Algorithm::ALL.to_vec(),
        hmac_secrets: vec![SECRET.to_vec()],
        public_keys_pem: vec![RSA_PUBLIC.to_owned(), ES256_PUBLIC.to_owned(), ED25519_PUBLIC.to_owned()],
        ..AuthRules::default()
    };
    Keys {
        verifier: Verifier::new(rules).expect("these keys are good"),
        secret: EncodingKey::from_secret(SECRET),
        stranger: EncodingKey::from_secret(RSA_PUBLIC.as_bytes()),
        es256: EncodingKey::from_ec_pem(ES256_PRIVATE.as_bytes()).expect(pem),
        ed25519: EncodingKey::from_ed_pem(ED25519_PRIVATE.as_bytes()).expect(pem),
        secret_public: DecodingKey::from_secret(SECRET),
        es256_public: DecodingKey::from_ec_pem(ES256_PUBLIC.as_bytes()).expect(pem),
        ed25519_public: DecodingKey::from_ed_pem(ED25519_PUBLIC.as_bytes()).expect(pem),
    }
});

/// What comes is a set of published keys.
const KEY_SET: u8 = 0x80;
const SECRET: &[u8] = b"a secret of more than thirty-two bytes, for fuzzers";
const NOW: Millis = Millis(1_734_567_890_123);
const RSA_PUBLIC: &str = include_str!("../../tests/fixtures/auth/rsa_public.pem");
const ES256_PUBLIC: &str = include_str!("../../tests/fixtures/auth/es256_public.pem");
const ES256_PRIVATE: &str = include_str!("../../tests/fixtures/auth/es256_private.pem");
const ED25519_PUBLIC: &str = include_str!("../../tests/fixtures/auth/ed25519_public.pem");
const ED25519_PRIVATE: &str = include_str!("../../tests/fixtures/auth/ed25519_private.pem");
