//! Drives the turn of a real ring over loopback sockets, without an executor.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::Ordering;

use super::super::{Caps, Parts, RingSettings, start};
use super::*;
use crate::auth::{AuthRules, Verifier};
use crate::engine::Settings;
use crate::mesh::{self, InboxSender, Waker};
use crate::metrics::Registry;
use crate::types::envelope::Body;
use crate::types::revocation::{Revocation, RevokedTokens};
use crate::types::{ShardId, UserId};
use crate::wire::frame::FrameLimits;
use crate::wire::json::JsonEncoder;
use crate::wire::upgrade::{OriginRule, UpgradeRules};

const PATIENCE: Duration = Duration::from_secs(60);

/// A shard without a store that listens, the way to give it orders, and a client that has connected and sent nothing.
fn driver() -> (Driver, InboxSender<Order>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let port = mesh::build::<Envelope>(1, 16).pop().expect("one was asked for");
    let waker = Waker::new(port.doorbell().clone()).unwrap();
    let inbox = Inbox::new(1_024, waker.clone());
    let orders = inbox.sender();
    let secret = AuthRules { hmac_secrets: vec![vec![7; 32]], ..AuthRules::default() };
    let frontpage = Arc::new(Frontpage::new(1, Arc::new(Registry::new(1))));
    frontpage.ready.store(true, Ordering::Relaxed);
    let ring = RingSettings { submissions: 64, completions: 256, buffers: 8, buffer_bytes: 4096 };
    let settings = DriverSettings {
        ring,
        frames: FrameLimits::new(100_000),
        unproven_bytes_max: 1_000,
        handshake_timeout_ms: 60_000,
        handshakes_per_turn_max: 64,
        assembly_timeout_ms: 60_000,
        spin_us: 0,
        private_descriptors: false,
        echo: false,
    };
    let ring = Ring::new(&ring).expect("this kernel has io_uring with deferred work and buffer rings");
    let neighbours = vec![ring.handle().unwrap()];
    let parts = Parts {
        id: ShardId(0),
        shards: 1,
        core: None,
        engine: Arc::new(Settings::default()),
        encoder: Box::new(JsonEncoder::new()),
        seed: 1,
        port,
        waker,
        inbox,
        store: None,
        listeners: vec![listener.into()],
        verifier: Arc::new(Verifier::new(secret).unwrap()),
        rules: Arc::new(UpgradeRules { path: Some("/ws".to_owned()), origins: OriginRule::Any, query_token: false }),
        frontpage,
        directory: Arc::new(Directory::new(1)),
        admission: Arc::new(Admission::new(Caps::default())),
        clock: Clock::start(),
        driver: settings,
    };
    (start::assemble(parts, ring, neighbours).unwrap(), orders, client)
}

fn request(token_id: &str) -> String {
    let claims = serde_json::json!({"sub": "alice", "exp": 4_000_000_000_u64, "jti": token_id});
    let secret = jsonwebtoken::EncodingKey::from_secret(&[7; 32]);
    let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &secret).unwrap();
    format!(
        "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer {token}\r\n\r\n"
    )
}

#[test]
fn a_revoked_token_opens_nothing_in_the_turn_that_hears_of_it() {
    for (shown, status) in [("stolen", "HTTP/1.1 401 "), ("another", "HTTP/1.1 101 ")] {
        let (mut driver, orders, mut client) = driver();
        driver.turn();
        while driver.admission.connections() == 0 {
            driver.ring.enter(Some(PATIENCE)).unwrap();
            driver.turn();
        }
        // Its request completes, and only then the order comes, behind many others: all are there when the turn begins.
        client.write_all(request(shown).as_bytes()).unwrap();
        driver.ring.enter(Some(PATIENCE)).unwrap();
        for _ in 0..1_000 {
            let kick = Body::Kick { user: UserId::new("nobody").unwrap(), device: None, close: CloseCode::Kicked };
            assert!(orders.try_send(Order::Operator(Box::new(kick))).is_ok());
        }
        let tokens = RevokedTokens::One { token_id: "stolen".to_owned() };
        let revocation = Revocation { tokens, until: Millis(u64::MAX) };
        let order = Order::Operator(Box::new(Body::Revoke(Arc::new(revocation))));
        assert!(orders.try_send(order).is_ok());
        driver.turn();
        driver.ring.enter(Some(Duration::ZERO)).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = [0; 13];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(String::from_utf8_lossy(&answer), status);
    }
}
