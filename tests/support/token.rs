//! Makes tokens, good and bad. Never asks the server for one.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

/// The secret that every test server is given.
pub const SECRET: &str = "a-secret-of-the-test-servers-with-enough-bytes";

/// A good token of an hour.
pub fn for_user(user: &str) -> String {
    with_claims(&json!({"sub": user, "exp": now_seconds() + 3600}))
}

/// Any claims under the right secret.
pub fn with_claims(claims: &Value) -> String {
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(SECRET.as_bytes()))
        .expect("claims are a JSON object")
}

/// Any header and claims, signed with HS256 under any secret, whatever the header says.
pub fn signed(header: &str, claims: &str, secret: &str) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let key = EncodingKey::from_secret(secret.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).expect("HS256 signs any bytes");
    format!("{message}.{signature}")
}

pub fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_secs()
}

pub fn now_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_millis() as u64
}
