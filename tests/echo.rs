//! Real clients against a real echo server, with 1 and 4 shards.

use std::io::{Read, Write};
use std::net::TcpStream;

use corehub::server::EchoServer;
use tungstenite::{Message, WebSocket};

type Client = WebSocket<TcpStream>;

fn server(shards: u16) -> EchoServer {
    EchoServer::start("127.0.0.1:0".parse().unwrap(), shards).expect("the server starts")
}

fn connect(server: &EchoServer) -> Client {
    let stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    let url = format!("ws://{}/anything", server.address);
    let (client, response) = tungstenite::client(url, stream).expect("the handshake succeeds");
    assert_eq!(response.status(), 101);
    client
}

fn echoes(client: &mut Client, message: Message) {
    client.send(message.clone()).unwrap();
    assert_eq!(client.read().unwrap(), message);
}

#[test]
fn messages_of_every_size_come_back() {
    for shards in [1, 4] {
        let server = server(shards);
        let mut client = connect(&server);
        for size in [0, 1, 125, 126, 4_000, 4_096, 65_535, 65_536, 1 << 20, 9 << 20] {
            echoes(&mut client, Message::binary(vec![7; size]));
            echoes(&mut client, Message::text("x".repeat(size)));
        }
        client.close(None).unwrap();
        while client.read().is_ok() {}
        server.stop().unwrap();
    }
}

#[test]
fn pings_are_answered_and_pipelined_messages_keep_their_order() {
    let server = server(1);
    let mut client = connect(&server);
    client.send(Message::Ping("are you there".into())).unwrap();
    assert_eq!(client.read().unwrap(), Message::Pong("are you there".into()));
    for at in 0..2_000 {
        client.write(Message::text(at.to_string())).unwrap();
    }
    client.flush().unwrap();
    for at in 0..2_000 {
        assert_eq!(client.read().unwrap(), Message::text(at.to_string()));
    }
    server.stop().unwrap();
}

#[test]
fn thousands_of_connections_are_served_at_once() {
    for shards in [1, 4] {
        let server = server(shards);
        let mut clients: Vec<Client> = (0..2_000).map(|_| connect(&server)).collect();
        for round in 0..3 {
            for (at, client) in clients.iter_mut().enumerate() {
                client.send(Message::text(format!("{round}:{at}"))).unwrap();
            }
            for (at, client) in clients.iter_mut().enumerate() {
                assert_eq!(client.read().unwrap(), Message::text(format!("{round}:{at}")));
            }
        }
        // Half of them go without a word; the others are still served, and so are new ones.
        clients.truncate(1_000);
        for client in &mut clients {
            echoes(client, Message::text("still here"));
        }
        echoes(&mut connect(&server), Message::text("new"));
        server.stop().unwrap();
    }
}

#[test]
fn bad_clients_are_told_what_was_wrong_and_let_go() {
    let server = server(1);
    for (frame, code) in [
        // Unmasked, reserved bit, reserved opcode, ping of 126 bytes, bad UTF-8.
        (&[0x81, 0x01, b'x'][..], 1002),
        (&[0xc1, 0x80, 0, 0, 0, 0][..], 1002),
        (&[0x83, 0x80, 0, 0, 0, 0][..], 1002),
        (&[0x89, 0xfe, 0, 126, 0, 0, 0, 0][..], 1002),
        (&[0x81, 0x81, 0, 0, 0, 0, 0xff][..], 1007),
    ] {
        let mut client = connect(&server);
        client.get_mut().write_all(frame).unwrap();
        let Message::Close(Some(close)) = client.read().unwrap() else { panic!("a close frame was due for {frame:?}") };
        assert_eq!(u16::from(close.code), code, "{frame:?}");
        // And the server's end of the stream is shut.
        let mut rest = Vec::new();
        client.get_mut().read_to_end(&mut rest).unwrap();
    }
    server.stop().unwrap();
}

#[test]
fn frames_behind_the_request_are_taken_after_the_upgrade() {
    let server = server(1);
    let mut stream = TcpStream::connect(server.address).unwrap();
    let mut bytes = b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        .to_vec();
    bytes.extend([0x81, 0x82, 0, 0, 0, 0, b'h', b'i']);
    // In one piece, and byte by byte.
    stream.write_all(&bytes).unwrap();
    assert!(read_until(&mut stream, b"\x81\x02hi").starts_with(b"HTTP/1.1 101"));
    let mut stream = TcpStream::connect(server.address).unwrap();
    for byte in bytes {
        stream.write_all(&[byte]).unwrap();
    }
    assert!(read_until(&mut stream, b"\x81\x02hi").starts_with(b"HTTP/1.1 101"));
    server.stop().unwrap();
}

#[test]
fn plain_pages_are_answered() {
    let server = server(1);
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    server.stop().unwrap();
}

#[test]
fn a_reader_that_does_not_read_holds_nobody_up() {
    let server = server(1);
    let mut deaf = connect(&server);
    let mut other = connect(&server);
    for _ in 0..8 {
        deaf.send(Message::binary(vec![1; 8 << 20])).unwrap_or_else(|fault| panic!("the server reads on: {fault}"));
        echoes(&mut other, Message::text("quick"));
    }
    drop(deaf);
    echoes(&mut other, Message::text("and after"));
    server.stop().unwrap();
}

fn read_until(stream: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    stream.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    let mut all = Vec::new();
    let mut byte = [0];
    while !all.ends_with(end) {
        stream.read_exact(&mut byte).unwrap();
        all.push(byte[0]);
    }
    all
}
