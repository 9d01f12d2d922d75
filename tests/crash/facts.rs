//! Owns what the clients saw: what they sent, what was acknowledged, what was pushed to them. Only facts; `verdict` judges them.

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;
use std::time::Instant;

use serde_json::Value;

/// Who may read each conversation.
pub type Conversations = HashMap<String, Vec<String>>;

/// What one client saw in its life, over all its connections.
#[derive(Default)]
pub struct Facts {
    pub user: String,
    pub sends: Vec<Sent>,
    /// In the order in which they were opened.
    pub sessions: Vec<Session>,
    /// Refusals by name, and how often.
    pub refusals: HashMap<String, u64>,
    /// How connections ended, by close code; 0 where none was heard.
    pub closes: BTreeMap<u16, u64>,
    /// `reconnect` pushes, and connections that this client broke off.
    pub reconnects: u64,
    pub breaks: u64,
    /// What must not happen whatever else does.
    pub faults: Vec<String>,
    /// A writer has nothing left that waits for an acknowledgement.
    pub settled: bool,
}

/// One message of the client, however often it was sent.
pub struct Sent {
    pub client_id: String,
    pub conversation: String,
    pub attempts: u32,
    pub first_sent: Instant,
    /// In the order of their arrival.
    pub acks: Vec<Ack>,
}

pub struct Ack {
    pub at: Instant,
    pub message_id: String,
    pub conversation: String,
    pub seq: u64,
    pub duplicate: bool,
}

/// One connection.
#[derive(Default)]
pub struct Session {
    pub device: String,
    pub pushes: Vec<Stored>,
    /// What the client has said to have: the server need not send that again.
    pub cursors: HashMap<String, u64>,
}

/// One message as a push or a page of history shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub conversation: String,
    pub seq: u64,
    pub message_id: String,
    pub sender: String,
    pub client_id: String,
    /// The content is what the sender made for this `client_id`.
    pub intact: bool,
    pub redelivered: bool,
}

impl Facts {
    pub fn acks(&self) -> usize {
        self.sends.iter().filter(|sent| !sent.acks.is_empty()).count()
    }
}

impl Stored {
    /// Reads the data of a `new_message`, or one entry of a history.
    pub fn read(data: &Value) -> Stored {
        let text = |name: &str| data[name].as_str().unwrap_or_default().to_owned();
        let client_id = text("client_message_id");
        let intact = data["content"].as_str().is_some_and(|found| found == content(&client_id));
        Stored {
            conversation: text("conversation_id"),
            seq: data["seq"].as_u64().unwrap_or_default(),
            message_id: text("message_id"),
            sender: text("sender_id"),
            client_id,
            intact,
            redelivered: data["redelivered"] == true,
        }
    }
}

impl Ack {
    pub fn read(data: &Value) -> Ack {
        let text = |name: &str| data[name].as_str().unwrap_or_default().to_owned();
        Ack {
            at: Instant::now(),
            message_id: text("message_id"),
            conversation: text("conversation_id"),
            seq: data["seq"].as_u64().unwrap_or_default(),
            duplicate: data["duplicate"] == true,
        }
    }
}

/// What a client says under this id: mostly short, one in six longer than a page, so that journals fill and tables are written.
/// `COREHUB_CRASH_CONTENT` makes the long ones so many times as long.
pub fn content(client_id: &str) -> String {
    let hash =
        client_id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    static SCALE: OnceLock<usize> = OnceLock::new();
    let scale = *SCALE.get_or_init(|| super::number("COREHUB_CRASH_CONTENT").unwrap_or(1) as usize);
    let mut rng = fastrand::Rng::with_seed(hash);
    let letters = if rng.u8(..6) == 0 { rng.usize(8_000..32_000) * scale } else { rng.usize(50..500) };
    let mut text = format!("{client_id} says ");
    text.extend(std::iter::repeat_with(|| rng.alphanumeric()).take(letters));
    text
}
