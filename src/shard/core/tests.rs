//! Drives a core without a kernel: bytes in, outboxes and answers out.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::*;
use crate::auth::{AuthRules, Verifier};
use crate::engine::Settings;
use crate::metrics::Registry;
use crate::shard::Frontpage;
use crate::types::ShardId;
use crate::wire::json::JsonEncoder;
use crate::wire::upgrade::{OriginRule, UpgradeRules};

const REQUEST: &str = "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

fn core(echo: bool) -> Core {
    let secret = AuthRules { hmac_secrets: vec![vec![7; 32]], ..AuthRules::default() };
    let verifier = Arc::new(Verifier::new(secret).unwrap());
    let encoder = Box::new(JsonEncoder::new());
    let engine = Shard::new(ShardId(0), 1, Arc::new(Settings::default()), encoder, verifier.clone(), 1);
    let frontpage = Arc::new(Frontpage::new(1, Arc::new(Registry::new(1))));
    frontpage.ready.store(true, Ordering::Relaxed);
    let rules = Arc::new(UpgradeRules { path: Some("/ws".to_owned()), origins: OriginRule::Any, query_token: false });
    Core {
        engine,
        effects: Effects::default(),
        connections: Connections::default(),
        now: Now::new(1_700_000_000_000, 5_000_000),
        greeter: Greeter { rules, verifier, frontpage },
        limits: FrameLimits::new(100_000),
        limits_unproven: FrameLimits::new(1_000),
        assembly_timeout_ms: 30_000,
        echo,
        watched: Deadlines::new(7_500),
        answers: Vec::new(),
        broken: Vec::new(),
        events: 0,
        greetings_left: 100,
        scratch: json::Scratch::new(),
        metrics: Box::default(),
        peers_lost: 0,
    }
}

fn enter(core: &mut Core) -> SessionKey {
    let key = core.connections.enter([127, 0, 0, 1].into(), 1);
    core.connections.at(key.slot).flags.set(Flags::SMALL);
    key
}

fn open(core: &mut Core) -> SessionKey {
    let key = enter(core);
    core.receive(key.slot, &mut REQUEST.as_bytes().to_vec());
    assert!(core.answers.pop().unwrap().frame.bytes().starts_with(b"HTTP/1.1 101"));
    key
}

/// A masked text frame (the mask is zero).
fn text(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x81];
    match u8::try_from(payload.len()) {
        Ok(short @ 0..126) => frame.push(0x80 | short),
        _ => {
            frame.push(0xfe);
            frame.extend((payload.len() as u16).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// All that waits for a connection; its flight lands at once.
fn said(core: &mut Core, key: SessionKey) -> Vec<u8> {
    let mut frames = Vec::new();
    let Some(outbox) = core.engine.outbox(key) else { return Vec::new() };
    outbox.take(usize::MAX, usize::MAX, &mut frames);
    outbox.landed();
    frames.iter().flat_map(|frame| frame.bytes().to_vec()).collect()
}

#[test]
fn a_panic_costs_one_connection() {
    let mut core = core(true);
    let (victim, neighbour) = (open(&mut core), open(&mut core));
    let again = Opened { key: victim, remote: [127, 0, 0, 1].into(), identity: None, wishes: Default::default(), echo: true };
    // The engine refuses, by a panic, to open what is open.
    core.step(Event::Opened(Box::new(again)));
    assert_eq!(core.metrics.faults_caught, 1);
    assert_eq!(said(&mut core, victim)[..4], [0x88, 10, 0x03, 0xf3], "closed with 1011");
    assert!(core.broken.is_empty());
    core.receive(neighbour.slot, &mut text(b"still here"));
    assert_eq!(said(&mut core, neighbour)[2..], *b"still here");
}

#[test]
fn requests_of_any_number_of_pieces_are_judged_once_whole() {
    for piece in [1, 7, 100] {
        let mut core = core(true);
        let key = enter(&mut core);
        let all = [REQUEST.as_bytes(), &text(b"hi")].concat();
        for bytes in all.chunks(piece) {
            core.receive(key.slot, &mut bytes.to_vec());
        }
        assert_eq!(core.answers.len(), 1);
        assert_eq!(said(&mut core, key), b"\x81\x02hi");
    }
}

#[test]
fn who_has_shown_no_token_may_say_little() {
    let mut core = core(false);
    let key = open(&mut core);
    core.receive(key.slot, &mut text(&[b' '; 1_001]));
    assert_eq!(said(&mut core, key)[2..4], 1009u16.to_be_bytes());
    let key = open(&mut core);
    core.connections.at(key.slot).flags.clear(Flags::SMALL);
    core.receive(key.slot, &mut text(&[b' '; 1_001]));
    let answer = String::from_utf8_lossy(&said(&mut core, key)).into_owned();
    assert!(answer.contains("BAD_JSON"), "{answer}");
}

#[test]
fn long_requests_and_bad_tokens_are_refused() {
    let mut core = core(false);
    let key = enter(&mut core);
    core.receive(key.slot, &mut format!("GET /ws HTTP/1.1\r\nX: {}\r\n", "x".repeat(17_000)).into_bytes());
    assert!(core.answers.pop().unwrap().frame.bytes().starts_with(b"HTTP/1.1 431"));
    assert!(matches!(core.connections.at(key.slot).phase, Phase::Leaving));
    let key = enter(&mut core);
    let request = REQUEST.replace("Host: x\r\n", "Host: x\r\nAuthorization: Bearer no.good.token\r\n");
    core.receive(key.slot, &mut request.into_bytes());
    let answer = core.answers.pop().unwrap();
    assert!(answer.last && answer.frame.bytes().starts_with(b"HTTP/1.1 401"));
    assert_eq!(core.metrics.connections_refused, 2);
    // Whatever else it says is not looked at.
    core.receive(key.slot, &mut text(b"{}"));
    assert!(core.answers.is_empty());
}

#[test]
fn a_message_must_be_complete_in_time() {
    let mut core = core(true);
    let (slow, quick) = (open(&mut core), open(&mut core));
    core.connections.at(slow.slot).flags.clear(Flags::SMALL);
    let frame = text(&[b'x'; 100]);
    core.receive(slow.slot, &mut frame[..50].to_vec());
    core.receive(quick.slot, &mut frame[..50].to_vec());
    let mut overdue = Vec::new();
    for second in 0..60 {
        core.now.mono_us += 1_000_000;
        overdue.extend(core.overdue().map(|key| (second, key)));
        // One byte more is no progress; a whole message is, also when the next one has begun.
        if second < 40 {
            core.receive(slow.slot, b"x".to_vec().as_mut_slice());
        }
        core.receive(quick.slot, &mut [&frame[50..], &frame[..50]].concat());
    }
    assert_eq!(overdue.len(), 1);
    assert!(overdue[0].1 == slow && (29..=38).contains(&overdue[0].0), "{overdue:?}");
}

#[test]
fn who_cannot_be_let_in_is_told_when_to_come_back() {
    let mut core = core(false);
    let key = enter(&mut core);
    let claims = serde_json::json!({"sub": "alice", "exp": 2_000_000_000});
    let secret = jsonwebtoken::EncodingKey::from_secret(&[7; 32]);
    let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &secret).unwrap();
    let request = REQUEST.replace("Host: x\r\n", &format!("Host: x\r\nAuthorization: Bearer {token}\r\n"));
    core.receive(key.slot, &mut request.into_bytes());
    let asked = core.effects.store.pop().expect("what the session needs is read");
    core.step(Event::StoreRefused { ticket: asked.ticket, retry_after_ms: 1 });
    let close = said(&mut core, key);
    assert_eq!(close[2..4], 4100u16.to_be_bytes());
    assert_eq!(close[4..], *b"overloaded;retry_after_ms=1000");
}
