//! Owns one connection that may break at any moment without that being a fault.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;
use tungstenite::client::IntoClientRequest;
use tungstenite::http::header::{AUTHORIZATION, HeaderValue};
use tungstenite::{Error, Message, WebSocket};

use crate::support::token;

pub struct Link {
    socket: WebSocket<TcpStream>,
}

/// How a client breaks off.
#[derive(Clone, Copy, Debug)]
pub enum Break {
    /// RST.
    Reset,
    /// FIN without a close frame.
    End,
    /// FIN in the midst of a frame.
    MidFrame,
    /// Nothing more is read or written, and nobody is told.
    Silence,
}

impl Break {
    pub const ALL: [Break; 4] = [Break::Reset, Break::End, Break::MidFrame, Break::Silence];
}

/// What came of waiting.
pub enum Heard {
    Envelope(Value),
    Nothing,
    /// The connection has ended, with this code when the server said why.
    Ended(Option<u16>),
}

impl Link {
    /// None when nobody listens or the server refuses: to be tried again.
    pub fn open(address: SocketAddr, user: &str, device: &str, acks: bool) -> Option<Link> {
        let stream = TcpStream::connect_timeout(&address, ANSWER_PATIENCE).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(ANSWER_PATIENCE)).ok()?;
        stream.set_write_timeout(Some(ANSWER_PATIENCE)).ok()?;
        let acks = if acks { "&acks=1" } else { "" };
        let target = format!("ws://{address}/ws?device_id={device}{acks}");
        let mut request = target.into_client_request().expect("the address is a good one");
        let bearer = format!("Bearer {}", token::for_user(user));
        request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_str(&bearer).expect("tokens are ASCII"));
        let (socket, _) = tungstenite::client::client(request, stream).ok()?;
        socket.get_ref().set_read_timeout(Some(TURN)).ok()?;
        Some(Link { socket })
    }

    /// Waits a moment for one message.
    pub fn hear(&mut self) -> Heard {
        match self.socket.read() {
            Ok(Message::Text(text)) => match serde_json::from_str(&text) {
                Ok(envelope) => Heard::Envelope(envelope),
                Err(fault) => panic!("the server sends JSON, not {text}: {fault}"),
            },
            Ok(Message::Close(frame)) => Heard::Ended(frame.map(|frame| frame.code.into())),
            Ok(_) => Heard::Nothing,
            Err(Error::Io(fault)) if matches!(fault.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Heard::Nothing
            }
            Err(Error::Io(fault)) if fault.kind() == io::ErrorKind::Interrupted => Heard::Nothing,
            Err(_) => Heard::Ended(None),
        }
    }

    /// Ends the connection in one of the ways in which networks do. What comes back is a socket that nobody reads any more: as
    /// long as it is kept, the server does not learn of the end.
    pub fn break_off(self, how: Break) -> Option<TcpStream> {
        let mut socket = self.socket;
        let stream = socket.get_mut();
        match how {
            Break::Reset => {
                socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO)).expect("TCP sockets have that option")
            }
            Break::MidFrame => {
                // The beginning of a masked text frame; whether it still gets there is of no matter.
                let _ = stream.write_all(&[0x81, 0xfe, 0x10]);
            }
            Break::End => {}
            Break::Silence => return stream.try_clone().ok(),
        }
        None
    }

    /// False when the connection has ended.
    pub fn say(&mut self, envelope: &Value) -> bool {
        self.socket.send(Message::text(envelope.to_string())).is_ok()
    }
}

/// How long a handshake or a write may hang in a server that is being killed.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// How long one look at the socket takes when nothing comes.
const TURN: Duration = Duration::from_millis(4);
