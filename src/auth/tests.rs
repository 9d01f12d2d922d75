//! Proves what tokens are taken and refused: each group of cases names the trick it guards against.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::EncodingKey;
use serde_json::{Value, json};

use super::*;

const SECRET: &[u8] = b"a secret of more than thirty-two bytes, for tests";
const NOW: Millis = Millis(1_734_567_890_123);
const NOW_S: u64 = NOW.0 / 1_000;
const RSA_PUBLIC: &str = include_str!("../../tests/fixtures/auth/rsa_public.pem");
const RSA_PRIVATE: &str = include_str!("../../tests/fixtures/auth/rsa_private.pem");
const RSA_1024_PUBLIC: &str = include_str!("../../tests/fixtures/auth/rsa_1024_public.pem");
const ES256_PUBLIC: &str = include_str!("../../tests/fixtures/auth/es256_public.pem");
const ES256_PRIVATE: &str = include_str!("../../tests/fixtures/auth/es256_private.pem");
const ES384_PUBLIC: &str = include_str!("../../tests/fixtures/auth/es384_public.pem");
const ED25519_PUBLIC: &str = include_str!("../../tests/fixtures/auth/ed25519_public.pem");
const ED25519_PRIVATE: &str = include_str!("../../tests/fixtures/auth/ed25519_private.pem");

fn rules() -> AuthRules {
    AuthRules { hmac_secrets: vec![SECRET.to_vec()], ..AuthRules::default() }
}

fn all_keys() -> AuthRules {
    AuthRules {
        algorithms: Algorithm::ALL.to_vec(),
        public_keys_pem: vec![RSA_PUBLIC.into(), ES256_PUBLIC.into(), ED25519_PUBLIC.into()],
        ..rules()
    }
}

fn verifier() -> Verifier {
    Verifier::new(rules()).unwrap()
}

fn encode(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// Signs exactly this header and these claims, however wrong they are.
fn sign_with(header: &str, claims: &str, key: &EncodingKey, algorithm: Algorithm) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm.library()).unwrap();
    format!("{message}.{signature}")
}

fn sign(header: Value, claims: Value) -> String {
    sign_with(&header.to_string(), &claims.to_string(), &EncodingKey::from_secret(SECRET), Algorithm::Hs256)
}

fn header() -> Value {
    json!({"alg": "HS256", "typ": "JWT"})
}

fn good() -> Value {
    json!({"sub": "alice", "exp": NOW_S + 60})
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = good();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = good();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

#[track_caller]
fn assert_bad(verifier: &Verifier, token: &str) {
    match verifier.verify(token, NOW) {
        Err(TokenFault::Bad(reason)) => assert!(!reason.is_empty()),
        other => panic!("{other:?} for {token:.200}"),
    }
}

#[test]
fn an_issued_token_says_what_it_was_given() {
    let token = NewToken {
        device: Some(DeviceId::new("phone").unwrap()),
        audience: Some("chat".into()),
        issuer: Some("https://id.example".into()),
        token_id: Some("t1".into()),
        ..NewToken::for_user(UserId::new("a:b%é").unwrap(), 60_000)
    };
    let rules = AuthRules { audience: Some(vec!["chat".into()]), issuer: Some("https://id.example".into()), ..rules() };
    let identity = Verifier::new(rules).unwrap().verify(&issue(SECRET, &token, NOW), NOW).unwrap();
    assert_eq!(
        identity,
        Identity {
            user: UserId::new("a:b%é").unwrap(),
            device: Some(DeviceId::new("phone").unwrap()),
            expires_at: Some(Millis((NOW_S + 60) * 1_000)),
            issued_at: Some(Millis(NOW_S * 1_000)),
            token_id: Some("t1".into()),
        }
    );
}

#[test]
fn a_previous_secret_still_opens_and_a_foreign_one_does_not() {
    let previous = b"the secret that was in use before this one".to_vec();
    let verifier = Verifier::new(AuthRules { hmac_secrets: vec![SECRET.to_vec(), previous.clone()], ..rules() }).unwrap();
    let token = NewToken::for_user(UserId::new("u").unwrap(), 60_000);
    for secret in [SECRET, &previous] {
        assert!(verifier.verify(&issue(secret, &token, NOW), NOW).is_ok());
    }
    assert_bad(&verifier, &issue(b"another secret that nobody configured here", &token, NOW));
}

#[test]
fn every_algorithm_works_with_its_own_key() {
    let verifier = Verifier::new(all_keys()).unwrap();
    let cases = [
        (Algorithm::Rs256, EncodingKey::from_rsa_pem(RSA_PRIVATE.as_bytes()).unwrap()),
        (Algorithm::Es256, EncodingKey::from_ec_pem(ES256_PRIVATE.as_bytes()).unwrap()),
        (Algorithm::EdDsa, EncodingKey::from_ed_pem(ED25519_PRIVATE.as_bytes()).unwrap()),
    ];
    for (algorithm, key) in &cases {
        let header = json!({"alg": algorithm.name()}).to_string();
        let token = sign_with(&header, &good().to_string(), key, *algorithm);
        assert_eq!(verifier.verify(&token, NOW).unwrap().user.as_str(), "alice", "{algorithm:?}");
        let tampered = sign_with(&header, &good().to_string(), key, *algorithm).replacen(
            &encode(&good()),
            &encode(&with("sub", json!("mallory"))),
            1,
        );
        assert_bad(&verifier, &tampered);
        // The same signature under another algorithm's name is tried with that algorithm's keys only.
        for other in Algorithm::ALL.into_iter().filter(|other| other != algorithm) {
            let header = json!({"alg": other.name()}).to_string();
            assert_bad(&verifier, &sign_with(&header, &good().to_string(), key, *algorithm));
        }
    }
}

#[test]
fn algorithm_none_and_other_names_are_refused() {
    let verifier = Verifier::new(all_keys()).unwrap();
    for name in ["none", "None", "nOnE", "NONE", "", "hs256", "HS384", "HS512", "PS256", "ES384", "RS512", "HS256 "] {
        let header = json!({"alg": name});
        assert_bad(&verifier, &sign(header.clone(), good()));
        for signature in ["", "AA", "."] {
            assert_bad(&verifier, &format!("{}.{}.{signature}", encode(&header), encode(&good())));
        }
    }
    for header in [json!({}), json!({"alg": null}), json!({"alg": 1}), json!({"alg": ["HS256"]}), json!("HS256"), json!([])] {
        assert_bad(&verifier, &sign(header, good()));
    }
}

#[test]
fn an_allowed_algorithm_without_its_key_opens_nothing() {
    let verifier = Verifier::new(AuthRules { algorithms: Algorithm::ALL.to_vec(), ..rules() }).unwrap();
    let key = EncodingKey::from_ed_pem(ED25519_PRIVATE.as_bytes()).unwrap();
    assert_bad(&verifier, &sign_with(r#"{"alg":"EdDSA"}"#, &good().to_string(), &key, Algorithm::EdDsa));
}

#[test]
fn the_public_key_is_no_secret() {
    let verifier = Verifier::new(all_keys()).unwrap();
    let asymmetric = AuthRules {
        algorithms: vec![Algorithm::Rs256],
        hmac_secrets: Vec::new(),
        public_keys_pem: vec![RSA_PUBLIC.into()],
        ..rules()
    };
    let only_rsa = Verifier::new(asymmetric).unwrap();
    for pem in [RSA_PUBLIC, RSA_PUBLIC.trim_end(), ES256_PUBLIC, ED25519_PUBLIC] {
        for algorithm in ["HS256", "RS256"] {
            let header = json!({"alg": algorithm}).to_string();
            let key = EncodingKey::from_secret(pem.as_bytes());
            let token = sign_with(&header, &good().to_string(), &key, Algorithm::Hs256);
            assert_bad(&verifier, &token);
            assert_bad(&only_rsa, &token);
        }
    }
}

#[test]
fn a_signature_of_zeros_is_refused() {
    let verifier = Verifier::new(all_keys()).unwrap();
    for (name, bytes) in [("ES256", 64), ("EdDSA", 64), ("RS256", 256), ("HS256", 32), ("ES256", 0), ("ES256", 63)] {
        let signature = URL_SAFE_NO_PAD.encode(vec![0u8; bytes]);
        assert_bad(&verifier, &format!("{}.{}.{signature}", encode(&json!({"alg": name})), encode(&good())));
    }
}

#[test]
fn a_token_has_three_parts() {
    let token = sign(header(), good());
    let (message, signature) = token.rsplit_once('.').unwrap();
    for wrong in [
        String::new(),
        ".".into(),
        "..".into(),
        "....".into(),
        message.into(),
        format!("{message}."),
        format!("{token}."),
        format!("{token}.x"),
        format!("{token}.x.x"),
        format!(".{signature}.{signature}"),
        format!("{message}..{signature}"),
    ] {
        assert_bad(&verifier(), &wrong);
    }
}

#[test]
fn only_canonical_base64url_is_read() {
    let token = sign(header(), good());
    let (message, signature) = token.rsplit_once('.').unwrap();
    let standard = STANDARD.encode(header().to_string());
    for wrong in [
        format!("{token}="),
        format!("{token}=="),
        format!(" {token}"),
        format!("{token}\n"),
        format!("{message}.{}+/", &signature[..signature.len() - 2]),
        format!("{standard}==.{}.{signature}", encode(&good())),
        format!("{message}.{signature}é"),
        token.replace('.', ". "),
    ] {
        assert_bad(&verifier(), &wrong);
    }
    // 32 bytes leave two unused bits in the last character: only one spelling of the four is the signature.
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let accepted = alphabet
        .chars()
        .filter(|last| verifier().verify(&format!("{message}.{}{last}", &signature[..signature.len() - 1]), NOW).is_ok())
        .count();
    assert_eq!(accepted, 1);
}

#[test]
fn a_long_token_is_refused_before_it_is_decoded() {
    let fits = sign(header(), with("pad", json!("x".repeat(5_000))));
    assert!(fits.len() < TOKEN_BYTES_MAX && verifier().verify(&fits, NOW).is_ok());
    let long = sign(header(), with("pad", json!("x".repeat(7_000))));
    assert_eq!(verifier().verify(&long, NOW), Err(TokenFault::Bad("the token is longer than 8 KiB")));
    assert_eq!(verifier().verify(&"x".repeat(1 << 20), NOW), Err(TokenFault::Bad("the token is longer than 8 KiB")));
}

#[test]
fn key_hints_in_the_header_lead_nowhere() {
    let foreign = EncodingKey::from_secret(b"the attacker's own secret, long enough");
    for hint in [
        json!({"kid": "../../etc/passwd"}),
        json!({"kid": "' OR 1=1 --"}),
        json!({"kid": "https://evil.example/key"}),
        json!({"jku": "https://evil.example/jwks.json"}),
        json!({"x5u": "https://evil.example/cert.pem"}),
        json!({"x5c": ["AAAA"]}),
        json!({"jwk": {"kty": "oct", "k": URL_SAFE_NO_PAD.encode(b"the attacker's own secret, long enough")}}),
    ] {
        let mut header = header();
        header.as_object_mut().unwrap().extend(hint.as_object().unwrap().clone());
        let forged = sign_with(&header.to_string(), &good().to_string(), &foreign, Algorithm::Hs256);
        assert_bad(&verifier(), &forged);
        // Our own signature stays good: the hint was never read.
        assert!(verifier().verify(&sign(header, good()), NOW).is_ok());
    }
}

#[test]
fn critical_extensions_are_refused() {
    for crit in [json!(["exp"]), json!(["b64"]), json!([]), json!(null), json!("x")] {
        assert_bad(&verifier(), &sign(json!({"alg": "HS256", "crit": crit}), good()));
    }
}

#[test]
fn a_repeated_member_is_refused() {
    let key = EncodingKey::from_secret(SECRET);
    let claims = good().to_string();
    assert_bad(&verifier(), &sign_with(r#"{"alg":"HS256","alg":"HS256"}"#, &claims, &key, Algorithm::Hs256));
    let twice = format!(r#"{{"sub":"a","sub":"b","exp":{}}}"#, NOW_S + 60);
    assert_bad(&verifier(), &sign_with(r#"{"alg":"HS256"}"#, &twice, &key, Algorithm::Hs256));
    for not_claims in ["", "null", "[]", "7", "{}", "{", "\u{feff}{}", &format!("{claims} x"), &"[".repeat(5_000)] {
        assert_bad(&verifier(), &sign_with(r#"{"alg":"HS256"}"#, not_claims, &key, Algorithm::Hs256));
    }
}

#[test]
fn exp_must_be_there_whole_and_ahead() {
    assert_bad(&verifier(), &sign(header(), without("exp")));
    let wrong = [
        json!("1999999999"),
        json!(NOW_S as f64 + 60.5),
        json!(1e18),
        json!(1_000_000_000_000_000_000u64),
        json!(-1),
        json!(null),
    ];
    for exp in wrong {
        assert_bad(&verifier(), &sign(header(), with("exp", exp)));
    }
    let written_as_float = format!(r#"{{"sub":"a","exp":{}.0}}"#, NOW_S + 60);
    assert_bad(
        &verifier(),
        &sign_with(r#"{"alg":"HS256"}"#, &written_as_float, &EncodingKey::from_secret(SECRET), Algorithm::Hs256),
    );
    for (exp, expired) in [(0, true), (NOW_S - 1, true), (NOW_S, true), (NOW_S + 1, false)] {
        let answer = verifier().verify(&sign(header(), with("exp", json!(exp))), NOW);
        assert_eq!(answer == Err(TokenFault::Expired), expired, "{exp}");
        assert_eq!(answer.is_ok(), !expired, "{exp}");
    }
}

#[test]
fn exp_may_be_missing_when_the_rules_say_so_but_is_never_ignored() {
    let verifier = Verifier::new(AuthRules { require_exp: false, ..rules() }).unwrap();
    assert_eq!(verifier.verify(&sign(header(), without("exp")), NOW).unwrap().expires_at, None);
    assert_eq!(verifier.verify(&sign(header(), with("exp", json!(NOW_S - 1))), NOW), Err(TokenFault::Expired));
    assert_bad(&verifier, &sign(header(), with("exp", json!("soon"))));
}

#[test]
fn leeway_moves_every_bound_and_is_capped() {
    let verifier = Verifier::new(AuthRules { leeway_ms: 60_000, ..rules() }).unwrap();
    assert!(verifier.verify(&sign(header(), with("exp", json!(NOW_S - 59))), NOW).is_ok());
    assert_eq!(verifier.verify(&sign(header(), with("exp", json!(NOW_S - 61))), NOW), Err(TokenFault::Expired));
    for name in ["nbf", "iat"] {
        assert!(verifier.verify(&sign(header(), with(name, json!(NOW_S + 60))), NOW).is_ok());
        assert_bad(&verifier, &sign(header(), with(name, json!(NOW_S + 61))));
    }
    assert_eq!(Verifier::new(AuthRules { leeway_ms: 60_001, ..rules() }).unwrap_err(), AuthFault::Leeway { given_ms: 60_001 });
}

#[test]
fn nbf_and_iat_must_be_whole_and_past() {
    for name in ["nbf", "iat"] {
        assert!(verifier().verify(&sign(header(), with(name, json!(NOW_S))), NOW).is_ok());
        for wrong in [json!(NOW_S + 1), json!("1"), json!(1.5), json!(-1), json!(1e18), json!(null), json!({})] {
            assert_bad(&verifier(), &sign(header(), with(name, wrong)));
        }
    }
}

#[test]
fn the_audience_must_name_us() {
    let verifier = Verifier::new(AuthRules { audience: Some(vec!["chat".into(), "im".into()]), ..rules() }).unwrap();
    for good in [json!("chat"), json!("im"), json!(["other", "chat"])] {
        assert!(verifier.verify(&sign(header(), with("aud", good)), NOW).is_ok());
    }
    assert_bad(&verifier, &sign(header(), good()));
    for wrong in
        [json!("other"), json!(["other"]), json!([]), json!("chat "), json!(["chat", 1]), json!(null), json!({"chat": 1})]
    {
        assert_bad(&verifier, &sign(header(), with("aud", wrong)));
    }
}

#[test]
fn the_issuer_must_be_exact() {
    let verifier = Verifier::new(AuthRules { issuer: Some("https://id.example".into()), ..rules() }).unwrap();
    assert!(verifier.verify(&sign(header(), with("iss", json!("https://id.example"))), NOW).is_ok());
    assert_bad(&verifier, &sign(header(), good()));
    for wrong in ["https://id.example/", "https://ID.example", "http://id.example", "https://id.example.evil", ""] {
        assert_bad(&verifier, &sign(header(), with("iss", json!(wrong))));
    }
    assert_bad(&verifier, &sign(header(), with("iss", json!(["https://id.example"]))));
}

#[test]
fn the_subject_must_be_a_user_id() {
    assert_bad(&verifier(), &sign(header(), without("sub")));
    for wrong in [json!(""), json!(7), json!("x".repeat(129)), json!("a\nb"), json!("a\u{0}"), json!(null), json!(["a"])] {
        assert_bad(&verifier(), &sign(header(), with("sub", wrong)));
    }
    // Two normal forms of one letter are two users; nothing folds them together.
    for right in ["x".repeat(128).as_str(), "a:b", "%", "\u{e9}", "e\u{301}"] {
        assert_eq!(verifier().verify(&sign(header(), with("sub", json!(right))), NOW).unwrap().user.as_str(), right);
    }
}

#[test]
fn device_and_token_id_are_checked() {
    for name in ["device_id", "jti"] {
        for wrong in [json!(""), json!(7), json!("x".repeat(129)), json!("a\tb"), json!(null)] {
            assert_bad(&verifier(), &sign(header(), with(name, wrong)));
        }
    }
    let identity = verifier().verify(&sign(header(), with("device_id", json!("phone"))), NOW).unwrap();
    assert_eq!(identity.device.unwrap().as_str(), "phone");
}

#[test]
fn rules_that_cannot_work_are_refused() {
    let fault = |rules| Verifier::new(rules).unwrap_err();
    assert_eq!(fault(AuthRules::default()), AuthFault::NoKeys);
    assert_eq!(fault(AuthRules { algorithms: vec![], ..rules() }), AuthFault::NoAlgorithms);
    assert_eq!(fault(AuthRules { hmac_secrets: vec![vec![]], ..rules() }), AuthFault::EmptySecret);
    assert_eq!(fault(AuthRules { hmac_secrets: vec![SECRET.to_vec(); 17], ..rules() }), AuthFault::TooManyKeys { max: 16 });
    assert_eq!(
        fault(AuthRules { algorithms: vec![Algorithm::Rs256], ..rules() }),
        AuthFault::KeyNotAllowed { algorithm: "HS256" }
    );
    assert_eq!(
        fault(AuthRules { public_keys_pem: vec![ES256_PUBLIC.into()], ..rules() }),
        AuthFault::KeyNotAllowed { algorithm: "ES256" }
    );
    let garbage = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
    for pem in [RSA_PRIVATE, ES256_PRIVATE, RSA_1024_PUBLIC, ES384_PUBLIC, garbage, "", "x"] {
        let rules = AuthRules { algorithms: Algorithm::ALL.to_vec(), public_keys_pem: vec![pem.into()], ..rules() };
        assert!(matches!(fault(rules), AuthFault::BadKey { index: 1, .. }), "{pem}");
    }
    assert_eq!(Algorithm::from_name("none").unwrap_err(), AuthFault::UnknownAlgorithm("none".into()));
    assert!(Algorithm::ALL.into_iter().all(|one| Algorithm::from_name(one.name()) == Ok(one)));
}

#[test]
fn debug_output_shows_no_secret() {
    let shown = format!("{:?} {:?}", rules(), verifier());
    assert!(!shown.contains("secret of") && !shown.contains("97, 32"), "{shown}");
}

const KEY_SET: &str = include_str!("../../tests/fixtures/auth/jwks.json");

/// A verifier whose only keys are published ones.
fn with_key_set(json: &str) -> Verifier {
    let algorithms = vec![Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa];
    let verifier = Verifier::new(AuthRules { algorithms, key_set: true, ..AuthRules::default() }).unwrap();
    verifier.publish(KeySet::parse(json.as_bytes(), verifier.algorithms()).unwrap());
    verifier
}

fn named(algorithm: &str, kid: Value, key: &EncodingKey) -> String {
    let mut header = json!({"alg": algorithm});
    if !kid.is_null() {
        header["kid"] = kid;
    }
    sign_with(&header.to_string(), &good().to_string(), key, Algorithm::from_name(algorithm).unwrap())
}

fn private_keys() -> [(&'static str, &'static str, EncodingKey); 3] {
    [
        ("RS256", "rsa-1", EncodingKey::from_rsa_pem(RSA_PRIVATE.as_bytes()).unwrap()),
        ("ES256", "ec-1", EncodingKey::from_ec_pem(ES256_PRIVATE.as_bytes()).unwrap()),
        ("EdDSA", "ed-1", EncodingKey::from_ed_pem(ED25519_PRIVATE.as_bytes()).unwrap()),
    ]
}

#[test]
fn a_published_key_is_found_by_its_name_and_fixes_the_algorithm() {
    let verifier = with_key_set(KEY_SET);
    for (algorithm, kid, key) in private_keys() {
        assert!(verifier.verify(&named(algorithm, json!(kid), &key), NOW).is_ok(), "{algorithm}");
        assert!(verifier.verify(&named(algorithm, json!(null), &key), NOW).is_ok(), "{algorithm} without a name");
        assert!(!verifier.newer_set_wanted());
        for other in ["rsa-1", "ec-1", "ed-1", "ec-384", "enc-1", "secret"].into_iter().filter(|other| *other != kid) {
            assert_bad(&verifier, &named(algorithm, json!(other), &key));
        }
        for odd in [json!(7), json!([]), json!({})] {
            assert_bad(&verifier, &named(algorithm, odd, &key));
        }
        verifier.newer_set_wanted();
        for unknown in ["../../etc/passwd", "' OR 1=1 --", "https://evil.example/key", ""] {
            assert_bad(&verifier, &named(algorithm, json!(unknown), &key));
        }
        assert!(verifier.newer_set_wanted() && !verifier.newer_set_wanted(), "asked for once");
    }
    let secret = EncodingKey::from_secret(b"a");
    assert_bad(&verifier, &sign_with(r#"{"alg":"HS256","kid":"secret"}"#, &good().to_string(), &secret, Algorithm::Hs256));
}

#[test]
fn a_newer_set_replaces_the_older_one() {
    let verifier = with_key_set(KEY_SET);
    let [_, (_, _, key), _] = private_keys();
    let token = named("ES256", json!("ec-1"), &key);
    assert!(verifier.verify(&token, NOW).is_ok());
    let renamed = KEY_SET.replace("ec-1", "ec-2");
    verifier.publish(KeySet::parse(renamed.as_bytes(), verifier.algorithms()).unwrap());
    assert_bad(&verifier, &token);
    assert!(verifier.verify(&named("ES256", json!("ec-2"), &key), NOW).is_ok());
}

#[test]
fn sets_without_a_key_for_us_are_refused() {
    let parse = |json: &str| KeySet::parse(json.as_bytes(), &Algorithm::ALL).map(|set| set.len());
    assert_eq!(parse(KEY_SET), Ok(3), "encryption keys, other curves and secrets are left out");
    assert_eq!(KeySet::parse(KEY_SET.as_bytes(), &[Algorithm::EdDsa]).map(|set| set.len()), Ok(1));
    for json in ["", "[]", "{}", r#"{"keys":7}"#] {
        assert_eq!(parse(json), Err(KeySetFault::NotASet), "{json}");
    }
    let many = format!(r#"{{"keys":[{}]}}"#, ["{}"; 65].join(","));
    assert_eq!(parse(&many), Err(KeySetFault::TooManyKeys));
    let off_the_curve = r#"{"kty":"EC","crv":"P-256","x":"ZERO","y":"ZERO"}"#.replace("ZERO", &"A".repeat(43));
    for key in [
        &off_the_curve,
        r#"{"kty":"oct","k":"YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE"}"#,
        r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#,
        r#"{"kty":"EC","crv":"P-256","x":"AA"}"#,
        r#"{"kty":"OKP","crv":"Ed25519","x":"AA"}"#,
        r#"{"kty":"OKP","crv":"X25519","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#,
        "7",
    ] {
        assert_eq!(parse(&format!(r#"{{"keys":[{key}]}}"#)), Err(KeySetFault::NoKeys), "{key}");
    }
}
