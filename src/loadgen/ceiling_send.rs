//! Owns the bare loop that a fan-out is held against: one prebuilt frame, `send(2)` to each of many sockets, at a given pace.
//!
//! Runs as a process of its own (`corehub bench ceiling-send`), so that its processor time is read like the server's. Never
//! reads its sockets, never batches: it is the least a server with one system call per delivery can do.

use std::io::{BufRead, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::error::{BenchError, BenchResult};

/// Accepts `connections` clients, then obeys `run <messages per second> <sockets per message> <seconds> <frame bytes>` lines on
/// standard input until it ends; each is answered with `done <sends that failed>`.
pub fn run(connections: usize) -> BenchResult<()> {
    let sockets = accept(connections)?;
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(BenchError::io("read an order"))?;
        let order = Order::parse(&line).ok_or_else(|| BenchError::Usage(format!("not an order: `{line}`")))?;
        say(&format!("done {}", order.obey(&sockets)))?;
    }
    Ok(())
}

/// Tells the address on standard output and accepts exactly so many clients.
pub(super) fn accept(connections: usize) -> BenchResult<Vec<TcpStream>> {
    super::process::descriptors(connections as u64)?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(BenchError::io("listen"))?;
    let address = listener.local_addr().map_err(BenchError::io("find the own address"))?;
    say(&format!("listening {address}"))?;
    let accept = || -> std::io::Result<TcpStream> {
        let (socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    (0..connections).map(|_| accept().map_err(BenchError::io("accept"))).collect()
}

fn say(line: &str) -> BenchResult<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}").and_then(|()| output.flush()).map_err(BenchError::io("answer"))
}

#[derive(Debug, PartialEq)]
struct Order {
    per_second: f64,
    sockets: usize,
    seconds: f64,
    frame_bytes: usize,
}

impl Order {
    fn parse(line: &str) -> Option<Order> {
        let mut words = line.strip_prefix("run ")?.split_ascii_whitespace();
        let order = Order {
            per_second: words.next()?.parse().ok()?,
            sockets: words.next()?.parse().ok()?,
            seconds: words.next()?.parse().ok()?,
            frame_bytes: words.next()?.parse().ok()?,
        };
        (order.per_second > 0.0 && order.seconds > 0.0 && words.next().is_none()).then_some(order)
    }

    /// Sends, and says how many sends did not take the whole frame at once.
    fn obey(&self, sockets: &[TcpStream]) -> u64 {
        let frame = vec![b'x'; self.frame_bytes];
        let start = Instant::now();
        let mut failed = 0;
        let mut next = 0;
        for message in 0u64.. {
            let due = start + Duration::from_secs_f64(message as f64 / self.per_second);
            if due >= start + Duration::from_secs_f64(self.seconds) {
                break;
            }
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            for _ in 0..self.sockets {
                // The standard library's write on a socket is one send(2).
                let sent = (&sockets[next]).write(&frame);
                failed += u64::from(!sent.is_ok_and(|sent| sent == frame.len()));
                next = if next + 1 == sockets.len() { 0 } else { next + 1 };
            }
        }
        failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn orders_are_read_whole_or_not_at_all() {
        let order = Order { per_second: 100.0, sockets: 999, seconds: 1.5, frame_bytes: 150 };
        assert_eq!(Order::parse("run 100 999 1.5 150"), Some(order));
        for line in ["run 100 999 1.5", "run 0 1 1 1", "run 1 1 1 1 1", "walk 1 1 1 1", ""] {
            assert_eq!(Order::parse(line), None, "{line}");
        }
    }

    #[test]
    fn every_socket_gets_its_frames() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let pairs: Vec<(TcpStream, TcpStream)> =
            (0..3).map(|_| (TcpStream::connect(address).expect("connects"), listener.accept().expect("accepts").0)).collect();
        let (mut clients, servers): (Vec<TcpStream>, Vec<TcpStream>) = pairs.into_iter().unzip();
        let order = Order { per_second: 1_000.0, sockets: 3, seconds: 0.01, frame_bytes: 7 };
        assert_eq!(order.obey(&servers), 0);
        drop(servers);
        for client in &mut clients {
            let mut all = Vec::new();
            client.read_to_end(&mut all).expect("readable");
            assert_eq!(all.len(), 10 * 7);
        }
    }
}
