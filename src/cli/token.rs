//! Owns `corehub token`: finds the secret and prints a signed token. Never prints the secret, never stores a token.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use serde::Serialize;

use crate::config::{Algorithm, Config, Secret};
use crate::types::{DeviceId, UserId};

use super::arguments::TokenArguments;
use super::{Environment, Exit, dev, print, serve};

/// `corehub token`.
pub fn token(arguments: &TokenArguments, environment: Environment) -> anyhow::Result<Exit> {
    let mut config = match Config::load(&arguments.sources(environment)) {
        Ok(config) => config,
        Err(errors) => return Ok(serve::refuse(&errors)),
    };
    let ids = UserId::new(&arguments.user).map_err(|fault| format!("--user {fault}")).and_then(|user| {
        let device = arguments.device.as_deref().map(DeviceId::new).transpose();
        Ok((user, device.map_err(|fault| format!("--device {fault}"))?))
    });
    let (user, device) = match ids {
        Ok(ids) => ids,
        Err(fault) => return Ok(refuse(&fault)),
    };
    if config.auth.hmac_secret.is_none() {
        config.auth.hmac_secret = dev::existing_secret(&config.store.path)?;
        if config.auth.hmac_secret.is_none() {
            return Ok(refuse(&format!(
                "no secret to sign with: set auth.hmac_secret, or name the data folder of a server started with --dev (--data); \
                 {} has none",
                config.store.path.display()
            )));
        }
    } else if !config.auth.algorithms.contains(&Algorithm::Hs256) {
        return Ok(refuse("auth.algorithms does not allow HS256: tokens come from the holder of the private key"));
    }
    let token = issue_for(&config, &user, device.as_ref(), arguments.ttl)?;
    print(&format!("{token}\n"))
}

/// A token that a server with this configuration accepts, valid from now on.
pub fn issue_for(config: &Config, user: &UserId, device: Option<&DeviceId>, ttl: Duration) -> anyhow::Result<String> {
    let secret = config.auth.hmac_secret.as_ref().context("no secret to sign with: set auth.hmac_secret")?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
    issue(secret, config, user, device, ttl, now)
}

fn issue(
    secret: &Secret,
    config: &Config,
    user: &UserId,
    device: Option<&DeviceId>,
    ttl: Duration,
    now: Duration,
) -> anyhow::Result<String> {
    let mut random = [0u8; 16];
    getrandom::fill(&mut random).context("the system gives no random numbers")?;
    let claims = Claims {
        sub: user.as_str(),
        iat: now.as_secs(),
        exp: (now + ttl).as_secs(),
        jti: uuid::Builder::from_random_bytes(random).into_uuid().to_string(),
        aud: config.auth.audience.first().map(String::as_str),
        iss: config.auth.issuer.as_deref(),
        device_id: device.map(DeviceId::as_str),
    };
    let key = jsonwebtoken::EncodingKey::from_secret(secret.expose());
    jsonwebtoken::encode(&jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256), &claims, &key).context("cannot sign")
}

/// PROTOCOL, "Token".
#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    iat: u64,
    exp: u64,
    /// For revocation.
    jti: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_id: Option<&'a str>,
}

fn refuse(message: &str) -> Exit {
    eprintln!("corehub: {message}");
    Exit::Refused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct Read {
        sub: String,
        device_id: Option<String>,
        exp: u64,
        iat: u64,
        jti: String,
    }

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn a_token_passes_the_checks_its_configuration_asks_for() {
        let text = format!("[auth]\nhmac_secret = \"{SECRET}\"\naudience = [\"chat\", \"other\"]\nissuer = \"us\"\n");
        let config = Config::parse("test", &text, false).expect("readable");
        let (user, device) = (UserId::new("ada").expect("an id"), DeviceId::new("phone").expect("an id"));
        let token = issue_for(&config, &user, Some(&device), Duration::from_secs(60)).expect("signed");
        let mut checks = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::HS256);
        checks.set_audience(&["chat"]);
        checks.set_issuer(&["us"]);
        checks.set_required_spec_claims(&["exp", "sub", "aud", "iss"]);
        let key = jsonwebtoken::DecodingKey::from_secret(SECRET.as_bytes());
        let read = jsonwebtoken::decode::<Read>(&token, &key, &checks).expect("valid").claims;
        assert_eq!((read.sub.as_str(), read.device_id.as_deref()), ("ada", Some("phone")));
        assert_eq!(read.exp - read.iat, 60);
        assert_eq!(read.jti.len(), 36);
        let again = issue_for(&config, &user, None, Duration::from_secs(60)).expect("signed");
        assert_ne!(jsonwebtoken::decode::<Read>(&again, &key, &checks).expect("valid").claims.jti, read.jti);
    }
}
