//! Owns a well-behaved client: tungstenite over a TCP stream with timeouts, replies matched by `message_id`, pushes kept in
//! order.

use std::collections::VecDeque;
use std::io;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

use super::http::Response;
use super::{PATIENCE, RawConnection, SILENCE, Server, token};

/// Where a client puts its token.
#[derive(Clone, Copy, PartialEq)]
pub enum Place {
    Header,
    Subprotocol,
    Query,
    Message,
}

/// How a client introduces itself.
#[derive(Clone)]
pub struct Login {
    pub user: String,
    pub token: String,
    pub place: Place,
    pub device: Option<String>,
    pub acks: bool,
    pub presence: bool,
}

impl Login {
    /// With a good token in the header and no wishes.
    pub fn of(user: &str) -> Login {
        let (user, token) = (user.to_owned(), token::for_user(user));
        Login { user, token, place: Place::Header, device: None, acks: false, presence: false }
    }

    pub fn device(mut self, device: &str) -> Login {
        self.device = Some(device.to_owned());
        self
    }

    /// Promises to send `recv_ack`.
    pub fn acks(mut self) -> Login {
        self.acks = true;
        self
    }

    pub fn presence(mut self) -> Login {
        self.presence = true;
        self
    }

    pub fn place(mut self, place: Place) -> Login {
        self.place = place;
        self
    }

    pub fn token(mut self, token: String) -> Login {
        self.token = token;
        self
    }

    fn target(&self) -> String {
        let mut parts = Vec::new();
        if self.place != Place::Message {
            parts.extend(self.device.iter().map(|device| format!("device_id={device}")));
            parts.extend(self.acks.then(|| "acks=1".to_owned()));
            parts.extend(self.presence.then(|| "presence=1".to_owned()));
        }
        if self.place == Place::Query {
            parts.push(format!("token={}", self.token));
        }
        if parts.is_empty() { "/ws".to_owned() } else { format!("/ws?{}", parts.join("&")) }
    }

    fn message(&self) -> Value {
        let mut data = json!({"token": self.token, "acks": self.acks, "presence": self.presence});
        if let Some(device) = &self.device {
            data["device_id"] = json!(device);
        }
        data
    }
}

/// One connection of a user.
pub struct Client {
    pub user: String,
    /// Data of `auth_success`; null before.
    pub success: Value,
    socket: WebSocket<TcpStream>,
    /// Pushes that were read while waiting for something else, oldest first.
    queue: VecDeque<Value>,
    closed: Option<(u16, String)>,
    requests: u64,
}

impl Client {
    /// Connects, authenticates and waits until everything missed has arrived. What was pushed meanwhile is kept.
    pub fn connect(server: &Server, user: &str) -> Client {
        Client::open(server, &Login::of(user))
    }

    /// The same with a device.
    pub fn connect_on(server: &Server, user: &str, device: &str) -> Client {
        Client::open(server, &Login::of(user).device(device))
    }

    /// The same with all wishes.
    pub fn open(server: &Server, login: &Login) -> Client {
        let mut client = Client::enter(server, login);
        client.success = client.take("auth_success")["data"].clone();
        client.take("sync_done");
        client
    }

    /// Upgrades and sends the token, without waiting for what comes of it.
    pub fn enter(server: &Server, login: &Login) -> Client {
        Client::try_enter(server, login).unwrap_or_else(|response| panic!("{}: {}", response.status, response.text()))
    }

    /// The same, or the HTTP refusal.
    pub fn try_enter(server: &Server, login: &Login) -> Result<Client, Response> {
        let mut connection = RawConnection::open(server);
        let value = match login.place {
            Place::Header => ("Authorization", format!("Bearer {}", login.token)),
            Place::Subprotocol => ("Sec-WebSocket-Protocol", format!("corehub.v1.json, bearer.{}", login.token)),
            Place::Query | Place::Message => ("User-Agent", "corehub-tests".to_owned()),
        };
        let response = connection.upgrade(&login.target(), &[(value.0, &value.1)]);
        if response.status != 101 {
            return Err(response);
        }
        let echoed = (login.place == Place::Subprotocol).then_some("corehub.v1.json");
        assert_eq!(response.header("sec-websocket-protocol"), echoed);
        let config = WebSocketConfig::default().read_buffer_size(16 * 1024);
        let RawConnection { stream, received } = connection;
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout above zero");
        let socket = WebSocket::from_partially_read(stream, received, Role::Client, Some(config));
        let (user, queue) = (login.user.clone(), VecDeque::new());
        let mut client = Client { user, success: Value::Null, socket, queue, closed: None, requests: 0 };
        if login.place == Place::Message {
            client.send("auth", login.message());
        }
        Ok(client)
    }

    /// Upgrades without a token.
    pub fn anonymous(server: &Server) -> Client {
        let login = Login::of("nobody").place(Place::Query).token(String::new());
        let mut connection = RawConnection::open(server);
        assert_eq!(connection.upgrade("/ws", &[]).status, 101);
        let RawConnection { stream, received } = connection;
        let socket = WebSocket::from_partially_read(stream, received, Role::Client, None);
        Client { user: login.user, success: Value::Null, socket, queue: VecDeque::new(), closed: None, requests: 0 }
    }

    /// Sends an envelope without `message_id`.
    pub fn send(&mut self, kind: &str, data: Value) {
        self.send_json(&json!({"type": kind, "data": data}));
    }

    /// Sends an envelope of one's own making.
    pub fn send_json(&mut self, envelope: &Value) {
        self.send_text(&envelope.to_string());
    }

    /// Sends an envelope; false when the connection has ended.
    pub fn try_send(&mut self, envelope: &Value) -> bool {
        self.socket.send(Message::text(envelope.to_string())).is_ok()
    }

    pub fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).expect("the connection is open");
    }

    /// Sends an envelope under a `message_id` of its own and waits for the reply: its whole envelope.
    pub fn request(&mut self, kind: &str, data: Value) -> Value {
        self.requests += 1;
        let id = format!("{}-{}-{kind}", self.session(), self.requests);
        self.request_as(&id, kind, data)
    }

    /// The same under a given `message_id`.
    pub fn request_as(&mut self, id: &str, kind: &str, data: Value) -> Value {
        self.send_json(&json!({"type": kind, "message_id": id, "timestamp": token::now_millis(), "data": data}));
        self.reply_to(id)
    }

    /// The reply that echoes this `message_id`.
    pub fn reply_to(&mut self, id: &str) -> Value {
        self.take_where(&format!("a reply to {id}"), |message| message["message_id"] == id)
    }

    /// A request that must succeed: the data of its reply.
    pub fn ask(&mut self, kind: &str, data: Value) -> Value {
        let reply = self.request(kind, data);
        assert_ne!(reply["type"], "error", "{kind} was refused: {reply}");
        reply["data"].clone()
    }

    /// A request that must be refused under this name: the data of the error.
    pub fn ask_refused(&mut self, name: &str, kind: &str, data: Value) -> Value {
        let reply = self.request(kind, data.clone());
        assert_error(&reply, name, &format!("{kind} {data}"));
        reply["data"].clone()
    }

    /// Sends a private text: the data of its ack.
    pub fn tell(&mut self, user: &str, content: &str) -> Value {
        self.acked("send_message", json!({"to_user_id": user, "content": content}))
    }

    /// Sends a group text: the data of its ack.
    pub fn tell_group(&mut self, group: &str, content: &str) -> Value {
        self.acked("send_group_message", json!({"group_id": group, "content": content}))
    }

    /// A request that must be answered by a successful `ack`: its data.
    pub fn acked(&mut self, kind: &str, data: Value) -> Value {
        let reply = self.request(kind, data);
        assert_eq!(reply["type"], "ack", "{kind}: {reply}");
        assert_eq!(reply["data"]["success"], true, "{reply}");
        reply["data"].clone()
    }

    /// The next push of this type, at most [`PATIENCE`] away: its data. Others stay in the queue.
    pub fn expect(&mut self, kind: &str) -> Value {
        self.take(kind)["data"].clone()
    }

    /// The next push of this type: its whole envelope.
    pub fn take(&mut self, kind: &str) -> Value {
        self.take_where(kind, |message| message["type"] == kind)
    }

    /// The next push that satisfies `wanted`: its whole envelope. Others stay in the queue.
    pub fn take_where(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.queue.iter().position(&wanted) {
            return self.queue.remove(at).expect("the position is inside");
        }
        let deadline = Instant::now() + PATIENCE;
        while let Some(message) = self.read(deadline) {
            if wanted(&message) {
                return message;
            }
            self.queue.push_back(message);
        }
        panic!("{} waits in vain for {what}; closed: {:?}; has: {:?}", self.user, self.closed, self.queue);
    }

    /// The next `count` pushes of this type: their data.
    pub fn expect_many(&mut self, kind: &str, count: usize) -> Vec<Value> {
        (0..count).map(|_| self.expect(kind)).collect()
    }

    /// Shows that no push of this type is here or comes within [`SILENCE`].
    pub fn expect_none(&mut self, kind: &str) {
        self.expect_none_for(kind, SILENCE);
    }

    pub fn expect_none_for(&mut self, kind: &str, silence: Duration) {
        self.listen(silence);
        let found = self.queue.iter().find(|message| message["type"] == kind);
        assert!(found.is_none(), "{} got what it should not: {found:?}", self.user);
    }

    /// Reads everything that comes within `time` into the queue.
    pub fn listen(&mut self, time: Duration) {
        let deadline = Instant::now() + time;
        while let Some(message) = self.read(deadline) {
            self.queue.push_back(message);
        }
    }

    /// All queued pushes of this type: their data.
    pub fn queued(&mut self, kind: &str) -> Vec<Value> {
        let (wanted, rest) = self.queue.drain(..).partition(|message| message["type"] == kind);
        self.queue = rest;
        let wanted: VecDeque<Value> = wanted;
        wanted.into_iter().map(|message| message["data"].clone()).collect()
    }

    /// All queued pushes of these types, in their order: their whole envelopes.
    pub fn drain(&mut self, kinds: &[&str]) -> Vec<Value> {
        let wanted = |message: &Value| kinds.iter().any(|kind| message["type"] == *kind);
        let (wanted, rest): (VecDeque<Value>, VecDeque<Value>) = self.queue.drain(..).partition(wanted);
        self.queue = rest;
        wanted.into()
    }

    /// The code and reason of the close that must come. Pushes before it stay in the queue.
    pub fn expect_close(&mut self) -> (u16, String) {
        let deadline = Instant::now() + PATIENCE;
        while let Some(message) = self.read(deadline) {
            self.queue.push_back(message);
        }
        self.closed.clone().unwrap_or_else(|| panic!("{} is not closed; has: {:?}", self.user, self.queue))
    }

    /// A close with this code, whose reason opens with the code's name.
    pub fn expect_close_as(&mut self, code: u16, name: &str) {
        let (found, reason) = self.expect_close();
        assert_eq!(found, code, "{reason}");
        assert_eq!(reason.split(';').next(), Some(name), "{reason}");
    }

    /// Shows that the connection works.
    pub fn assert_alive(&mut self) {
        assert_eq!(self.request("ping", json!({}))["type"], "pong");
    }

    /// Sends a protocol ping and waits for its pong.
    pub fn protocol_ping(&mut self, payload: &[u8]) -> Vec<u8> {
        self.socket.send(Message::Ping(payload.to_vec().into())).expect("the connection is open");
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.read_frame(deadline) {
                Some(Message::Pong(payload)) => return payload.to_vec(),
                Some(Message::Text(text)) => self.queue.push_back(serde_json::from_str(&text).expect("the server sends JSON")),
                Some(_) => {}
                None => panic!("no pong; closed: {:?}", self.closed),
            }
        }
    }

    /// Closes in order and waits until the server has closed too.
    pub fn leave(mut self) {
        self.socket.close(None).expect("the connection is open");
        self.expect_close();
    }

    /// Ends the connection without a close.
    pub fn vanish(self) {
        socket2::SockRef::from(self.socket.get_ref()).set_linger(Some(Duration::ZERO)).expect("a TCP socket has that option");
    }

    fn session(&self) -> &str {
        self.success["session_id"].as_str().unwrap_or("anonymous")
    }

    fn read(&mut self, deadline: Instant) -> Option<Value> {
        loop {
            match self.read_frame(deadline)? {
                Message::Text(text) => return Some(serde_json::from_str(&text).expect("the server sends JSON")),
                Message::Binary(_) => panic!("the server sends text on the JSON subprotocol"),
                _ => {}
            }
        }
    }

    /// None when the deadline has passed or the connection is closed.
    fn read_frame(&mut self, deadline: Instant) -> Option<Message> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            self.socket.get_ref().set_read_timeout(Some(left.max(MOMENT))).expect("a timeout above zero");
            match self.socket.read() {
                Ok(Message::Close(frame)) => {
                    let frame = frame.map_or((1005, String::new()), |frame| (frame.code.into(), frame.reason.to_string()));
                    self.closed.get_or_insert(frame);
                }
                Ok(message) => return Some(message),
                Err(Error::Io(fault))
                    if matches!(
                        fault.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
                    ) =>
                {
                    if left.is_zero() {
                        return None;
                    }
                }
                Err(_) => {
                    // 1006 stands for an end without a close frame, as in browsers.
                    self.closed.get_or_insert((1006, String::new()));
                    return None;
                }
            }
        }
    }
}

/// Checks an error envelope against the table of the protocol.
pub fn assert_error(envelope: &Value, name: &str, what: &str) {
    assert_eq!(envelope["type"], "error", "{what}: {envelope}");
    let data = &envelope["data"];
    assert_eq!(data["name"], name, "{what}: {envelope}");
    assert_eq!(data["code"], code_of(name), "{what}: {envelope}");
    let temporary = matches!(name, "RATE_LIMITED" | "INTERNAL" | "OVERLOADED" | "STORE_UNAVAILABLE" | "DRAINING");
    assert_eq!(data["temporary"], temporary, "{what}: {envelope}");
    assert!(data["message"].is_string(), "{what}: {envelope}");
}

fn code_of(name: &str) -> u16 {
    match name {
        "BAD_JSON" | "BAD_REQUEST" | "UNKNOWN_MESSAGE_TYPE" | "UNSUPPORTED_DATA" => 400,
        "UNAUTHENTICATED" | "BAD_TOKEN" | "TOKEN_EXPIRED" | "TOKEN_REVOKED" => 401,
        "FORBIDDEN" | "NOT_A_MEMBER" | "RECALL_WINDOW_PASSED" => 403,
        "NO_SUCH_GROUP" | "NO_SUCH_MESSAGE" => 404,
        "ALREADY_EXISTS" | "ALREADY_AUTHENTICATED" => 409,
        "TOO_LARGE" => 413,
        "RATE_LIMITED" => 429,
        "INTERNAL" => 500,
        "OVERLOADED" | "STORE_UNAVAILABLE" | "DRAINING" => 503,
        other => panic!("{other} is not an error name of the protocol"),
    }
}

/// The shortest read timeout that the system takes.
const MOMENT: Duration = Duration::from_millis(1);
