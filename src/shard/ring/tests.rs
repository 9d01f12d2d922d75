//! Drives a real ring over loopback sockets.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use super::*;

fn ring_with(buffers: u16, buffer_bytes: u32) -> Ring {
    let settings = RingSettings { submissions: 8, completions: 256, buffers, buffer_bytes };
    Ring::new(&settings).expect("this kernel has io_uring with deferred work and buffer rings")
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

/// Enters until something has completed.
fn next(ring: &mut Ring) -> Completion {
    let start = Instant::now();
    loop {
        if let Some(completion) = ring.next_completion() {
            return completion;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "nothing completes");
        ring.enter(Some(Duration::from_millis(100))).unwrap();
    }
}

fn frames(sizes: &[usize]) -> Vec<Frame> {
    sizes.iter().enumerate().map(|(at, size)| Frame::own(&vec![at as u8; *size])).collect()
}

#[test]
fn received_bytes_are_lent_and_sent_back() {
    let mut ring = ring_with(2, 64);
    let (mut client, server) = pair();
    ring.open(3, server.into());
    ring.receive(3);
    for round in 0..10u8 {
        client.write_all(&[round; 40]).unwrap();
        let Completion::Received { slot: 3, buffer, ended: false } = next(&mut ring) else { panic!("bytes were sent") };
        assert_eq!(ring.filled(buffer), &[round; 40]);
        let mut echo = vec![Frame::own(ring.filled(buffer))];
        ring.give_back(buffer);
        ring.send(3, &mut echo);
        assert!(matches!(next(&mut ring), Completion::Sent { slot: 3, bytes: 40 }));
        let mut back = [0; 40];
        client.read_exact(&mut back).unwrap();
        assert_eq!(back, [round; 40]);
    }
    drop(client);
    assert!(matches!(next(&mut ring), Completion::ReceiveEnded { slot: 3, end: ReceiveEnd::Closed }));
    ring.close(3);
    assert!(matches!(next(&mut ring), Completion::Closed { slot: 3 }));
}

#[test]
fn flights_of_every_shape_arrive_whole_and_in_order() {
    let shapes: [&[usize]; 5] = [&[1], &[10, 20, 30], &[5000; 3], &[100_000; 40], &[9_000_000]];
    for shape in shapes {
        let mut ring = ring_with(2, 64);
        let (mut client, server) = pair();
        ring.open(0, server.into());
        let expected: Vec<u8> = frames(shape).iter().flat_map(|frame| frame.bytes().to_vec()).collect();
        let length = expected.len();
        let reader = std::thread::spawn(move || {
            let mut all = vec![0; length];
            client.read_exact(&mut all).unwrap();
            all
        });
        ring.send(0, &mut frames(shape));
        assert!(ring.is_sending(0));
        let Completion::Sent { slot: 0, bytes } = next(&mut ring) else { panic!("everything is read") };
        assert_eq!(bytes as usize, length);
        assert!(!ring.is_sending(0));
        assert!(reader.join().unwrap() == expected, "{shape:?}");
    }
}

#[test]
fn a_close_ends_a_flight_that_nobody_reads() {
    let mut ring = ring_with(2, 64);
    let (client, server) = pair();
    ring.open(0, server.into());
    ring.receive(0);
    ring.send(0, &mut frames(&[8 << 20, 8 << 20]));
    ring.enter(Some(Duration::from_millis(20))).unwrap();
    assert!(ring.next_completion().is_none());
    ring.close(0);
    assert!(matches!(next(&mut ring), Completion::Closed { slot: 0 }));
    assert_eq!(ring.held, 0);
    drop(client);
    let (_other, again) = pair();
    ring.open(0, again.into());
}

#[test]
fn running_out_of_buffers_ends_receiving_until_it_is_armed_again() {
    let mut ring = ring_with(2, 64);
    let (mut client, server) = pair();
    ring.open(0, server.into());
    ring.receive(0);
    client.write_all(&[7; 300]).unwrap();
    let mut held = Vec::new();
    let end = loop {
        match next(&mut ring) {
            Completion::Received { buffer, .. } => held.push(buffer),
            Completion::ReceiveEnded { end, .. } => break end,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(end, ReceiveEnd::NoBuffers);
    assert_eq!(held.len(), 2);
    assert!(!ring.is_receiving(0));
    let mut bytes = 0;
    loop {
        for buffer in held.drain(..) {
            bytes += ring.filled(buffer).len();
            ring.give_back(buffer);
        }
        if bytes == 300 {
            break;
        }
        ring.receive(0);
        if let Completion::Received { buffer, .. } = next(&mut ring) {
            held.push(buffer);
        }
    }
}

#[test]
fn a_pause_leaves_bytes_to_the_kernel() {
    let mut ring = ring_with(2, 64);
    let (mut client, server) = pair();
    ring.open(0, server.into());
    ring.receive(0);
    ring.enter(Some(Duration::ZERO)).unwrap();
    ring.pause(0);
    ring.pause(0);
    assert!(matches!(next(&mut ring), Completion::ReceiveEnded { slot: 0, end: ReceiveEnd::Paused }));
    client.write_all(b"later").unwrap();
    ring.enter(Some(Duration::from_millis(20))).unwrap();
    assert!(ring.next_completion().is_none());
    ring.receive(0);
    let Completion::Received { buffer, .. } = next(&mut ring) else { panic!("bytes wait") };
    assert_eq!(ring.filled(buffer), b"later");
}

#[test]
fn connections_are_accepted_until_listening_stops() {
    let mut ring = ring_with(2, 64);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    assert_eq!(ring.listen(listener.into()), 0);
    let clients: Vec<_> = (0..20).map(|_| TcpStream::connect(address)).collect();
    for _ in &clients {
        let Completion::Accepted { listener: 0, result: Ok(_), ended: false } = next(&mut ring) else { panic!("clients wait") };
    }
    ring.stop_listening();
    ring.enter(Some(Duration::from_millis(20))).unwrap();
    assert!(ring.next_completion().is_none());
    assert_eq!(ring.held, 0);
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn an_eventfd_rings_every_time() {
    let mut ring = ring_with(2, 64);
    let bell = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
    let rope = bell.try_clone().unwrap();
    ring.watch_bell(bell);
    for _ in 0..3 {
        let rope = rope.try_clone().unwrap();
        let ringer = std::thread::spawn(move || rustix::io::write(&rope, &1u64.to_ne_bytes()).unwrap());
        assert!(matches!(next(&mut ring), Completion::Rung));
        ringer.join().unwrap();
        while ring.next_completion().is_some() {}
    }
}

#[test]
fn rings_wake_each_other() {
    let (to_other, from_main) = std::sync::mpsc::channel();
    let (to_main, from_other) = std::sync::mpsc::channel();
    let other = std::thread::spawn(move || {
        let mut ring = ring_with(2, 64);
        to_main.send(ring.handle().unwrap()).unwrap();
        ring.know_neighbours(vec![from_main.recv().unwrap()]);
        for _ in 0..100 {
            assert!(matches!(next(&mut ring), Completion::Rung));
            ring.ring(0);
            ring.enter(Some(Duration::ZERO)).unwrap();
        }
    });
    let mut ring = ring_with(2, 64);
    to_other.send(ring.handle().unwrap()).unwrap();
    ring.know_neighbours(vec![from_other.recv().unwrap()]);
    for _ in 0..100 {
        ring.ring(0);
        ring.enter(Some(Duration::ZERO)).unwrap();
        assert!(matches!(next(&mut ring), Completion::Rung));
    }
    other.join().unwrap();
    // A neighbour that is gone must not disturb.
    ring.ring(0);
    ring.enter(Some(Duration::from_millis(20))).unwrap();
    assert!(ring.next_completion().is_none());
}

#[test]
fn a_ring_goes_with_everything_in_flight() {
    let mut ring = ring_with(4, 64);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    ring.listen(listener.into());
    ring.watch_bell(rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap());
    let pairs: Vec<_> = (0..30).map(|_| pair()).collect();
    let mut clients = Vec::new();
    for (slot, (client, server)) in pairs.into_iter().enumerate() {
        clients.push(client);
        ring.open(slot as u32, server.into());
        ring.receive(slot as u32);
        ring.send(slot as u32, &mut frames(&[8 << 20]));
    }
    ring.enter(Some(Duration::ZERO)).unwrap();
    assert!(ring.held >= 62);
    drop(ring);
    for mut client in clients {
        // What had left arrives, then the end: the socket is really closed.
        let mut sink = Vec::new();
        let _ = client.read_to_end(&mut sink);
        assert!(sink.len() < 8 << 20);
    }
}

#[test]
fn a_turn_hears_nothing_that_came_after_the_last_entry() {
    let mut ring = ring_with(4, 64);
    let pairs: Vec<_> = (0..20).map(|_| pair()).collect();
    let mut clients = Vec::new();
    for (slot, (mut client, server)) in pairs.into_iter().enumerate() {
        client.write_all(b"x").unwrap();
        clients.push(client);
        ring.open(slot as u32, server.into());
        // The queue holds eight and is submitted in between; what waits in these sockets completes at once.
        ring.receive(slot as u32);
    }
    assert!(ring.next_completion().is_none());
    ring.enter(Some(Duration::ZERO)).unwrap();
    assert!(matches!(next(&mut ring), Completion::Received { .. }));
}
