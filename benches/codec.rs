//! What reading and writing one message costs the processor, without kernel and engine: frames in place, JSON to request, push to
//! frame. Run with `cargo bench --bench codec`.

mod measure;

use std::hint::black_box;
use std::sync::Arc;

use corehub::types::push::{Ack, SentAck};
use corehub::types::record::MessageType;
use corehub::types::{
    ConversationId, Encode, Message, MessageId, MessageKind, Millis, Push, RawJson, RequestId, Seq, SessionId, UserId,
};
use corehub::wire::frame::{Feed, FrameLimits, Item, Reader};
use corehub::wire::json::{JsonEncoder, Scratch, decode};

fn main() {
    let bench = measure::Bench::from_arguments();
    for bytes in [64, 1_024, 65_536] {
        frame(&bench, bytes);
        request(&bench, bytes);
        push(&bench, bytes);
    }
    acknowledgement(&bench);
}

/// One masked frame as it lies in a receive buffer: header, unmasking, UTF-8.
fn frame(bench: &measure::Bench, bytes: usize) {
    let sent = masked(send_message(bytes).as_bytes());
    let limits = FrameLimits::new(1 << 20);
    let mut reader = Reader::new();
    let mut buffer = sent.clone();
    bench.case(&format!("frame/read, content of {bytes} B"), 1, || {
        buffer.copy_from_slice(&sent);
        let mut feed = Feed::new(&mut buffer);
        match reader.next(&mut feed, &limits) {
            Ok(Some(Item::Message { payload, .. })) => {
                black_box(payload.len());
            }
            other => panic!("a whole message was fed: {other:?}"),
        }
    });
}

/// `send_message` from text to checked request.
fn request(bench: &measure::Bench, bytes: usize) {
    let text = send_message(bytes);
    let mut scratch = Scratch::new();
    bench.case(&format!("json/decode send_message, content of {bytes} B"), 1, || {
        black_box(decode(black_box(text.as_bytes()), &mut scratch).expect("a good request"));
    });
}

/// `new_message` from value to shared frame.
fn push(bench: &measure::Bench, bytes: usize) {
    let message = Arc::new(Message {
        conversation: ConversationId::private(&user("ada"), &user("grace")),
        seq: Seq(123_456),
        id: MessageId::from_parts(1_734_567_890_123, 42),
        sender: Some(user("ada")),
        origin: SessionId(7),
        client_id: Some(RequestId::new("request-000001").expect("a valid id")),
        kind: MessageKind::Chat(MessageType::Text),
        content: RawJson::string(&"x".repeat(bytes)),
        created_at: Millis(1_734_567_890_123),
        extra: None,
    });
    let push = Push::Message { message, redelivered: false };
    let encoder = JsonEncoder::new();
    bench.case(&format!("json/encode new_message, content of {bytes} B"), 1, || {
        black_box(encoder.shared(black_box(&push)));
    });
}

fn acknowledgement(bench: &measure::Bench) {
    let sent = SentAck {
        message_id: MessageId::from_parts(1_734_567_890_123, 42),
        conversation: ConversationId::private(&user("ada"), &user("grace")),
        seq: Seq(123_456),
        created_at: Millis(1_734_567_890_123),
        duplicate: false,
    };
    let push = Push::Ack(Ack { sent: Some(sent), group: None });
    let request = RequestId::new("request-000001").expect("a valid id");
    let encoder = JsonEncoder::new();
    bench.case("json/encode ack", 1, || {
        black_box(encoder.push(black_box(&push), Some(&request)));
    });
}

fn user(id: &str) -> UserId {
    UserId::new(id).expect("a valid id")
}

fn send_message(bytes: usize) -> String {
    let content = "x".repeat(bytes);
    let data = format!(r#"{{"to_user_id":"grace","content":"{content}"}}"#);
    format!(r#"{{"type":"send_message","message_id":"request-000001","timestamp":1734567890123,"data":{data}}}"#)
}

/// A client's text frame (RFC 6455 section 5.3).
fn masked(payload: &[u8]) -> Vec<u8> {
    let key = [0x9a, 0x5c, 0x11, 0xf3];
    let mut frame = vec![0x81];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length @ 126..=65_535 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&key);
    frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}
