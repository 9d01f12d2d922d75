//! Owns the check of a token against configured rules (RFC 7519, RFC 8725). Never reads a clock, performs I/O, or lets a token
//! bring its key or choose its algorithm. One is shared by all shard threads; only the set of published
//! keys ever changes, as a whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::claims::{self, Claims, Header};
use super::keys::Key;
use super::{Algorithm, AuthFault, Identity, KeySet, TokenFault};
use crate::types::Millis;

/// Longest token that is looked at, in bytes; longer ones are refused before anything is decoded.
pub const TOKEN_BYTES_MAX: usize = 8 << 10;

/// Largest `leeway_ms`.
pub const LEEWAY_MS_MAX: u64 = 60_000;

/// What a token must satisfy. Every key's algorithm must be in the allow-list.
#[derive(Clone)]
pub struct AuthRules {
    /// `auth.algorithms`.
    pub algorithms: Vec<Algorithm>,
    /// Current and previous secrets, as raw bytes; a token may be signed with any.
    pub hmac_secrets: Vec<Vec<u8>>,
    /// RSA (2048 to 4096 bits), P-256 or Ed25519 public keys.
    pub public_keys_pem: Vec<String>,
    /// A set of published keys will be given to [`Verifier::publish`]: no other key is needed.
    pub key_set: bool,
    /// Some: `aud` must name one of these.
    pub audience: Option<Vec<String>>,
    /// Some: `iss` must be exactly this.
    pub issuer: Option<String>,
    /// A token without `exp` is refused.
    pub require_exp: bool,
    /// How far clocks may differ, in milliseconds, at most [`LEEWAY_MS_MAX`].
    pub leeway_ms: u64,
}

impl Default for AuthRules {
    /// HS256 with no key yet, `exp` required, no leeway.
    fn default() -> AuthRules {
        AuthRules {
            algorithms: vec![Algorithm::Hs256],
            hmac_secrets: Vec::new(),
            public_keys_pem: Vec::new(),
            key_set: false,
            audience: None,
            issuer: None,
            require_exp: true,
            leeway_ms: 0,
        }
    }
}

/// Checks tokens. A check costs a few microseconds for HS256, and the public-key operation for the others.
pub struct Verifier {
    keys: Vec<Key>,
    algorithms: Vec<Algorithm>,
    /// Replaced as a whole; whoever checks a token takes the one that is there and waits for nobody.
    published: ArcSwapOption<KeySet>,
    /// A token has named a key that is not in the set.
    newer_wanted: AtomicBool,
    audience: Option<Vec<String>>,
    issuer: Option<String>,
    require_exp: bool,
    leeway_ms: u64,
}

impl Verifier {
    /// Reads the keys and refuses rules that could not work or would be weak.
    pub fn new(rules: AuthRules) -> Result<Verifier, AuthFault> {
        if rules.leeway_ms > LEEWAY_MS_MAX {
            return Err(AuthFault::Leeway { given_ms: rules.leeway_ms });
        }
        if rules.algorithms.is_empty() {
            return Err(AuthFault::NoAlgorithms);
        }
        if rules.hmac_secrets.len() + rules.public_keys_pem.len() > KEYS_MAX {
            return Err(AuthFault::TooManyKeys { max: KEYS_MAX });
        }
        let mut keys = Vec::with_capacity(rules.hmac_secrets.len() + rules.public_keys_pem.len());
        for secret in &rules.hmac_secrets {
            keys.push(Key::secret(secret)?);
        }
        for (at, pem) in rules.public_keys_pem.iter().enumerate() {
            keys.push(Key::public(pem, at + 1)?);
        }
        if keys.is_empty() && !rules.key_set {
            return Err(AuthFault::NoKeys);
        }
        if let Some(key) = keys.iter().find(|key| !rules.algorithms.contains(&key.algorithm())) {
            return Err(AuthFault::KeyNotAllowed { algorithm: key.algorithm().name() });
        }
        let AuthRules { algorithms, audience, issuer, require_exp, leeway_ms, .. } = rules;
        let (published, newer_wanted) = (ArcSwapOption::empty(), AtomicBool::new(false));
        Ok(Verifier { keys, algorithms, published, newer_wanted, audience, issuer, require_exp, leeway_ms })
    }

    /// From now on tokens may be signed with these keys too, instead of those published before. May be called from any thread.
    pub fn publish(&self, set: KeySet) {
        self.published.store(Some(Arc::new(set)));
    }

    /// True when a token has named a key that the published set lacks since this was asked last: there may be a newer set.
    pub fn newer_set_wanted(&self) -> bool {
        self.newer_wanted.swap(false, Ordering::Relaxed)
    }

    /// `auth.algorithms`.
    pub fn algorithms(&self) -> &[Algorithm] {
        &self.algorithms
    }

    /// Who the bearer of `token` is at wall time `now`. Claims are only looked at once the signature is good.
    pub fn verify(&self, token: &str, now: Millis) -> Result<Identity, TokenFault> {
        let parts = Parts::split(token)?;
        let header = claims::read_header(&decode(parts.header)?)?;
        let signed = |key: &Key| key.signed(parts.signed_part, parts.signature);
        let configured = self.keys.iter().filter(|key| key.algorithm() == header.algorithm).any(signed);
        if !configured && !self.published_key_fits(&header, signed) {
            return Err(TokenFault::Bad("the signature is not by a key this server trusts"));
        }
        self.judge(Claims::read(&decode(parts.claims)?)?, now)
    }

    fn published_key_fits(&self, header: &Header, signed: impl Fn(&Key) -> bool) -> bool {
        let Some(set) = &*self.published.load() else { return false };
        let name = header.key_name.as_deref();
        if name.is_some_and(|name| !set.has(name)) {
            self.newer_wanted.store(true, Ordering::Relaxed);
        }
        set.candidates(header.algorithm, name).any(signed)
    }

    fn judge(&self, claims: Claims, now: Millis) -> Result<Identity, TokenFault> {
        if self.require_exp && claims.expires_at.is_none() {
            return Err(TokenFault::Bad("exp is missing"));
        }
        let latest = now.0.saturating_add(self.leeway_ms);
        if claims.not_before.is_some_and(|at| at.0 > latest) {
            return Err(TokenFault::Bad("nbf lies in the future"));
        }
        if claims.issued_at.is_some_and(|at| at.0 > latest) {
            return Err(TokenFault::Bad("iat lies in the future"));
        }
        if self.audience.as_ref().is_some_and(|wanted| !claims.audience_is_one_of(wanted)) {
            return Err(TokenFault::Bad("aud does not name this service"));
        }
        if self.issuer.as_ref().is_some_and(|wanted| !claims.issuer_is(wanted)) {
            return Err(TokenFault::Bad("iss is not the issuer this server trusts"));
        }
        if claims.expires_at.is_some_and(|at| now.0 >= at.0.saturating_add(self.leeway_ms)) {
            return Err(TokenFault::Expired);
        }
        let Claims { user, device, expires_at, issued_at, token_id, .. } = claims;
        Ok(Identity { user, device, expires_at, issued_at, token_id })
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Verifier({} keys)", self.keys.len())
    }
}

impl std::fmt::Debug for AuthRules {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("AuthRules")
            .field("algorithms", &self.algorithms)
            .field("hmac_secrets", &self.hmac_secrets.len())
            .field("public_keys_pem", &self.public_keys_pem.len())
            .field("key_set", &self.key_set)
            .field("audience", &self.audience)
            .field("issuer", &self.issuer)
            .field("require_exp", &self.require_exp)
            .field("leeway_ms", &self.leeway_ms)
            .finish()
    }
}

/// The three segments of a compact JWS (RFC 7515 section 7.1), each of the base64url alphabet and not empty.
struct Parts<'a> {
    header: &'a str,
    claims: &'a str,
    signature: &'a str,
    /// Header and claims with the dot between them.
    signed_part: &'a str,
}

impl Parts<'_> {
    fn split(token: &str) -> Result<Parts<'_>, TokenFault> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenFault::Bad("the token is longer than 8 KiB"));
        }
        let mut segments = token.split('.');
        let (Some(header), Some(claims), Some(signature), None) =
            (segments.next(), segments.next(), segments.next(), segments.next())
        else {
            return Err(TokenFault::Bad("a token has three parts"));
        };
        for segment in [header, claims, signature] {
            let alphabet = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            if segment.is_empty() || !segment.bytes().all(alphabet) {
                return Err(TokenFault::Bad("every part of a token is base64url without padding, and none is empty"));
            }
        }
        let signed_part = &token[..header.len() + 1 + claims.len()];
        Ok(Parts { header, claims, signature, signed_part })
    }
}

fn decode(segment: &str) -> Result<Vec<u8>, TokenFault> {
    URL_SAFE_NO_PAD.decode(segment).map_err(|_| TokenFault::Bad("a part of the token is not canonical base64url"))
}

/// Every key of the right type is tried on every token, so their number is what a bad token costs.
const KEYS_MAX: usize = 16;

const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<Verifier>();
};
