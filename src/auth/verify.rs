//! Owns the check of a token against configured rules (RFC 7519, RFC 8725). Never reads a clock, performs I/O, or lets a token
//! choose its key or algorithm. Immutable after construction, so one is shared by all shard threads.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::claims::{self, Claims};
use super::keys::Key;
use super::{Algorithm, AuthFault, Identity, TokenFault};
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
        if keys.is_empty() {
            return Err(AuthFault::NoKeys);
        }
        if let Some(key) = keys.iter().find(|key| !rules.algorithms.contains(&key.algorithm())) {
            return Err(AuthFault::KeyNotAllowed { algorithm: key.algorithm().name() });
        }
        let AuthRules { audience, issuer, require_exp, leeway_ms, .. } = rules;
        Ok(Verifier { keys, audience, issuer, require_exp, leeway_ms })
    }

    /// Who the bearer of `token` is at wall time `now`. Claims are only looked at once the signature is good.
    pub fn verify(&self, token: &str, now: Millis) -> Result<Identity, TokenFault> {
        let parts = Parts::split(token)?;
        let algorithm = claims::read_header(&decode(parts.header)?)?;
        let signed =
            self.keys.iter().filter(|key| key.algorithm() == algorithm).any(|key| key.signed(parts.signed_part, parts.signature));
        if !signed {
            return Err(TokenFault::Bad("the signature is not by a key this server trusts"));
        }
        self.judge(Claims::read(&decode(parts.claims)?)?, now)
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
