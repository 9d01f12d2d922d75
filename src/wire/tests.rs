//! Owns the proof that another implementation understands this one: tungstenite's client against handshake, reader and
//! encoder, over memory.

use std::io::{self, ErrorKind, Read, Write};

use tungstenite::handshake::HandshakeError;
use tungstenite::{Message, WebSocket};

use super::*;
use crate::types::{CloseCode, Command, Encode, Millis, Push};

/// A server over memory: answers pings with pongs, `ping` envelopes with `pong`, everything else as it came.
struct Server {
    rules: UpgradeRules,
    received: Vec<u8>,
    answers: Vec<u8>,
    upgraded: bool,
    reader: Reader,
    encoder: JsonEncoder,
    scratch: Scratch,
}

impl Server {
    fn new() -> Server {
        let origins = OriginRule::Listed { exact: vec![], localhost: false };
        Server {
            rules: UpgradeRules { path: Some("/ws".to_owned()), origins, query_token: false },
            received: Vec::new(),
            answers: Vec::new(),
            upgraded: false,
            reader: Reader::new(),
            encoder: JsonEncoder::new(),
            scratch: Scratch::new(),
        }
    }

    fn serve(&mut self) {
        if !self.upgraded {
            match upgrade::parse(&self.received, &self.rules) {
                Ok(Parsed::Upgrade(request)) => {
                    self.answers.extend(upgrade::accept(&request));
                    self.received.drain(..request.consumed);
                    self.upgraded = true;
                }
                Ok(Parsed::NeedMore) => return,
                other => panic!("{other:?}"),
            }
        }
        // Odd pieces, so that frames are split.
        for piece in self.received.chunks_mut(1_021) {
            let mut feed = Feed::new(piece);
            while let Some(item) = self.reader.next(&mut feed, &FrameLimits::new(1 << 20)).unwrap() {
                let frame = match item {
                    Item::Message { text: true, payload } => match decode(payload, &mut self.scratch) {
                        Ok(request) if request.command == Command::Ping => {
                            self.encoder.push(&Push::Pong { server_time: Millis(1) }, request.id.as_ref())
                        }
                        _ => self.encoder.raw(true, payload),
                    },
                    Item::Message { text: false, payload } => self.encoder.raw(false, payload),
                    Item::Ping(payload) => self.encoder.pong(payload),
                    Item::Pong(_) => continue,
                    Item::Close { .. } => self.encoder.close(CloseCode::Kicked, "kicked"),
                };
                self.answers.extend(frame.bytes());
            }
        }
        self.received.clear();
    }
}

impl Read for Server {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.serve();
        if self.answers.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let count = self.answers.len().min(out.len());
        out[..count].copy_from_slice(&self.answers[..count]);
        self.answers.drain(..count);
        Ok(count)
    }
}

impl Write for Server {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.received.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn connect() -> WebSocket<Server> {
    let mut attempt = tungstenite::client("ws://chat.example/ws", Server::new());
    loop {
        match attempt {
            Ok((socket, _)) => return socket,
            Err(HandshakeError::Interrupted(handshake)) => attempt = handshake.handshake(),
            Err(HandshakeError::Failure(error)) => panic!("{error}"),
        }
    }
}

#[test]
fn another_implementation_connects_and_talks() {
    let mut socket = connect();
    for size in [0, 1, 125, 126, 1_000, 65_535, 65_536, 300_000] {
        for message in [Message::binary(vec![7; size]), Message::text("\u{e4}".repeat(size / 2))] {
            socket.send(message.clone()).unwrap();
            assert_eq!(socket.read().unwrap(), message, "{size}");
        }
    }
    socket.send(Message::text(r#"{"type":"ping","message_id":"p1"}"#)).unwrap();
    assert_eq!(socket.read().unwrap(), Message::text(r#"{"type":"pong","message_id":"p1","data":{"server_time":1}}"#));
    socket.send(Message::Ping("are you there".into())).unwrap();
    assert_eq!(socket.read().unwrap(), Message::Pong("are you there".into()));
    socket.close(None).unwrap();
    let Message::Close(Some(close)) = socket.read().unwrap() else { panic!("no close") };
    assert_eq!((u16::from(close.code), close.reason.as_str()), (4011, "kicked"));
}
