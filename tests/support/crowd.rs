//! Owns thousands of quiet connections, read by one thread: opened in parallel, then polled without blocking.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustix::process::{Resource, getrlimit, setrlimit};

use super::{RawConnection, Server, frames, token};

/// Connections that only listen.
pub struct Crowd {
    poll: Poll,
    members: Vec<Member>,
}

struct Member {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Crowd {
    /// Opens one connection per (user, device), in this order.
    pub fn gather(server: &Server, logins: &[(String, String)]) -> Crowd {
        allow_open_files();
        let share = logins.len().div_ceil(OPENERS).max(1);
        let connections: Vec<RawConnection> = std::thread::scope(|scope| {
            let openers: Vec<_> = logins
                .chunks(share)
                .map(|part| scope.spawn(move || part.iter().map(|login| open(server, login)).collect::<Vec<_>>()))
                .collect();
            openers.into_iter().flat_map(|opener| opener.join().expect("every connection is accepted")).collect()
        });
        let poll = Poll::new().expect("the system has epoll");
        let members = connections.into_iter().enumerate().map(|(index, connection)| {
            connection.stream.set_nonblocking(true).expect("a socket can be made non-blocking");
            let mut stream = TcpStream::from_std(connection.stream);
            poll.registry().register(&mut stream, Token(index), Interest::READABLE).expect("epoll takes a socket");
            Member { stream, received: connection.received }
        });
        let members = members.collect();
        Crowd { poll, members }
    }

    /// Hands every message to `take` with its member's index, until `take` answers true or nothing has come for `silence`.
    pub fn listen(&mut self, silence: Duration, mut take: impl FnMut(usize, &[u8]) -> bool) {
        for index in 0..self.members.len() {
            if self.members[index].deliver(index, &mut take) {
                return;
            }
        }
        let mut events = Events::with_capacity(1024);
        let mut heard = Instant::now();
        while heard.elapsed() < silence {
            if let Err(fault) = self.poll.poll(&mut events, Some(Duration::from_millis(100))) {
                // Whoever held this process let it go on.
                assert_eq!(fault.kind(), std::io::ErrorKind::Interrupted, "polling works");
                continue;
            }
            for event in &events {
                heard = Instant::now();
                let index = event.token().0;
                self.members[index].read();
                if self.members[index].deliver(index, &mut take) {
                    return;
                }
            }
        }
    }
}

impl Member {
    fn read(&mut self) {
        let mut part = [0; 64 * 1024];
        loop {
            match self.stream.read(&mut part) {
                Ok(0) => return,
                Ok(count) => self.received.extend_from_slice(&part[..count]),
                Err(fault) if fault.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    fn deliver(&mut self, index: usize, take: &mut impl FnMut(usize, &[u8]) -> bool) -> bool {
        let mut from = 0;
        let mut done = false;
        while let Some((first, payload)) = frames::parse(&self.received[from..]) {
            let end = from + payload.end;
            if first & 0xf == frames::TEXT {
                done |= take(index, &self.received[from + payload.start..end]);
            }
            from = end;
        }
        self.received.drain(..from);
        done
    }
}

fn open(server: &Server, (user, device): &(String, String)) -> RawConnection {
    let mut connection = RawConnection::open(server);
    let bearer = format!("Bearer {}", token::for_user(user));
    let response = connection.upgrade(&format!("/ws?device_id={device}"), &[("Authorization", &bearer)]);
    assert_eq!(response.status, 101, "{}", response.text());
    connection.read_until("sync_done");
    connection
}

/// Takes all the open files that this process may have: the usual soft limit of 1,024 holds no crowd.
fn allow_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("up to the hard limit everybody may go");
}

/// Threads that open connections.
const OPENERS: usize = 8;
