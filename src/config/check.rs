//! Owns the relations between options: what no single one of them can tell. Never reads a source and never changes a value.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::choice::{Algorithm, StoreKind};
use super::options::Config;
use super::source::Reader;
use super::value::Secret;

/// Adds a finding for every relation that does not hold.
pub(super) fn relations(reader: &mut Reader) {
    secrets(reader);
    signatures(reader);
    public_key(reader);
    key_set(reader);
    key_file(reader);
    origins(reader);
    numbers(reader);
}

fn secrets(reader: &mut Reader) {
    let Config { auth, admin, dev, .. } = &reader.config;
    if *dev {
        return;
    }
    let short =
        |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.expose().len()).filter(|bytes| *bytes < SECRET_BYTES_MIN);
    for (key, bytes) in [("auth.hmac_secret", short(&auth.hmac_secret)), ("admin.api_key", short(&admin.api_key))] {
        if let Some(bytes) = bytes {
            let message = format!("has {bytes} bytes, but must have at least {SECRET_BYTES_MIN}: take `openssl rand -hex 32`");
            reader.conflict(&[key], message);
        }
    }
}

fn signatures(reader: &mut Reader) {
    let auth = &reader.config.auth;
    let public: Vec<_> = auth.algorithms.iter().filter(|one| **one != Algorithm::Hs256).map(|one| one.as_str()).collect();
    let (by_secret, by_key) = (auth.algorithms.contains(&Algorithm::Hs256), !public.is_empty());
    let (has_secret, has_file) = (reader.is_set("auth.hmac_secret"), reader.is_set("auth.public_key_file"));
    let has_set = reader.is_set("auth.jwks");
    let has_key = has_file || has_set;
    let kinds = public.iter().collect::<std::collections::BTreeSet<_>>().len();
    let keys = ["auth.algorithms", "auth.public_key_file"];
    if !by_secret && !by_key {
        reader.conflict(&["auth.algorithms"], "is empty, but must name at least one");
    }
    if by_secret && !has_secret && !reader.config.dev {
        let message = "is not set: give it at least 32 bytes (`openssl rand -hex 32`), or set auth.public_key_file and \
                       auth.algorithms (RS256, ES256 or EdDSA), or start with --dev";
        reader.conflict(&["auth.hmac_secret", "auth.algorithms"], message);
    }
    if by_key && !has_key {
        let message =
            format!("is not set, but auth.algorithms allows {}: set it or auth.jwks, or remove them", public.join(", "));
        reader.conflict(&["auth.public_key_file", "auth.algorithms"], message);
    }
    if has_key && !by_key {
        let set = if has_file { "auth.public_key_file" } else { "auth.jwks" };
        reader.conflict(&keys, format!("allows only HS256, but {set} is set: add RS256, ES256 or EdDSA, whichever fits it"));
    }
    if kinds > 1 && !has_set {
        let message = format!("allows {}, but auth.public_key_file holds one key, which fits one of them", public.join(", "));
        reader.conflict(&keys, message);
    }
}

fn public_key(reader: &mut Reader) {
    let Some(path) = reader.config.auth.public_key_file.clone() else { return };
    let message = match read_key(&path) {
        Err(error) => format!("names {}, which cannot be read: {error}", path.display()),
        Ok(text) if text.contains("PRIVATE KEY-----") => {
            format!("names {}, which holds a private key: give the public one", path.display())
        }
        Ok(text) if !text.contains("-----BEGIN ") => format!("names {}, which is not a PEM file", path.display()),
        Ok(_) => return,
    };
    reader.conflict(&["auth.public_key_file"], message);
}

fn key_set(reader: &mut Reader) {
    let Some(place) = reader.config.auth.jwks.clone() else { return };
    let message = if place.starts_with("https://") {
        return;
    } else if let Some(rest) = place.strip_prefix("http://") {
        // Whoever sits on the way could hand out keys of their own.
        let host = rest.split(['/', '?', '#']).next().unwrap_or(rest);
        let host = host.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')).map_or(host, |(host, _)| host);
        if ["localhost", "127.0.0.1", "[::1]"].contains(&host) {
            return;
        }
        "must be an https URL, or a file; plain http is for this machine only".to_owned()
    } else {
        match read_key(Path::new(&place)) {
            Ok(_) => return,
            Err(error) => format!("names the file {place}, which cannot be read: {error}"),
        }
    };
    reader.conflict(&["auth.jwks"], message);
}

/// Never more than a key can have: what is named may be a device, or still be written to.
fn read_key(path: &Path) -> io::Result<String> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"));
    }
    let mut text = String::new();
    File::open(path)?.take(KEY_FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// What is in it is judged when the store is opened.
fn key_file(reader: &mut Reader) {
    let Config { store, .. } = &reader.config;
    let Some(path) = &store.encryption_key_file else { return };
    let message = match std::fs::File::open(path) {
        _ if store.kind != StoreKind::Embedded => "is set, but only store.kind = \"embedded\" keeps anything to seal".to_owned(),
        Err(error) => format!("names {}, which cannot be read: {error}", path.display()),
        Ok(_) => return,
    };
    reader.conflict(&["store.encryption_key_file"], message);
}

fn origins(reader: &mut Reader) {
    let lists = [
        ("listen.origins", reader.config.listen.origins.clone()),
        ("admin.cors_origins", reader.config.admin.cors_origins.clone()),
    ];
    for (key, origins) in lists {
        for origin in origins.iter().filter(|origin| !is_origin(origin)) {
            let message = format!(
                "holds {origin:?}, but must hold exact origins as browsers send them: https://chat.example.com or \
                 http://localhost:3000, lower case, without path, wildcard or default port"
            );
            reader.conflict(&[key], message);
        }
    }
}

fn numbers(reader: &mut Reader) {
    let Config { listen, heartbeat, limits, server, .. } = reader.config.clone();
    if heartbeat.timeout <= heartbeat.interval {
        reader.conflict(
            &["heartbeat.timeout", "heartbeat.interval"],
            "must be longer than heartbeat.interval, or no answer to a ping could arrive in time",
        );
    }
    if limits.content_bytes.is_some_and(|content| content > limits.message_bytes) {
        reader.conflict(
            &["limits.content_bytes", "limits.message_bytes"],
            format!("must be at most limits.message_bytes, which is {}", limits.message_bytes),
        );
    }
    if listen.client == listen.admin && listen.client.port() != 0 {
        reader.conflict(&["listen.admin", "listen.client"], "must differ from listen.client");
    }
    if server.node_id.len() > NODE_ID_BYTES_MAX {
        reader.conflict(&["server.node_id"], format!("must have at most {NODE_ID_BYTES_MAX} bytes"));
    }
}

/// RFC 6454 section 6.2 as browsers send it: scheme, host and a port that is not the scheme's own.
fn is_origin(text: &str) -> bool {
    let Some((host_and_port, default_port)) =
        text.strip_prefix("https://").map(|rest| (rest, "443")).or_else(|| text.strip_prefix("http://").map(|rest| (rest, "80")))
    else {
        return false;
    };
    let (host, port) = match host_and_port.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (host_and_port, None),
    };
    let named = host.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte));
    let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let host_fits = !host.is_empty() && (named || bracketed.is_some_and(|it| it.parse::<std::net::Ipv6Addr>().is_ok()));
    let port_fits = port.is_none_or(|port| {
        port != default_port && port.parse::<u16>().is_ok_and(|number| number != 0 && number.to_string() == port)
    });
    host_fits && port_fits
}

/// HS256 is as strong as its key, so a key is at least as long as the digest (RFC 7518 section 3.2).
pub const SECRET_BYTES_MIN: usize = 32;

/// Many times the largest public key in PEM.
const KEY_FILE_BYTES_MAX: u64 = 64 << 10;

/// As long as any identifier that clients see.
const NODE_ID_BYTES_MAX: usize = 128;
