//! Real clients against a real echo server, with 1 and 4 shards.

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
