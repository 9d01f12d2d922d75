//! Owns the admin port's connections: accepting, their number, their age and their end. Never looks into a request. Lives on
//! the control thread.
//!
//! More than [`CONNECTIONS_MAX`] connections wait in the kernel's backlog until one ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// Who is connected, for handlers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

/// When to stop, and how long to let requests finish.
pub(super) type Stop = watch::Receiver<Option<Duration>>;

/// Serves until `stop` is told, then lets running requests finish within the deadline it was told.
pub(super) async fn serve(listener: std::net::TcpListener, router: Router, mut stop: Stop) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &room) => accepted,
            _ = stop.changed() => break,
        };
        match accepted {
            Ok((stream, peer, permit)) => {
                let connection = converse(stream, peer, router.clone(), stop.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            Err(fault) => {
                // Out of descriptors, mostly. Accepting again at once would only spin.
                tracing::warn!(%fault, "the admin port could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    // The handle was dropped without a deadline: end at once.
    let deadline = stop.borrow().unwrap_or_default();
    let _ = tokio::time::timeout(deadline, async { while connections.join_next().await.is_some() {} }).await;
    Ok(())
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let permit = room.clone().acquire_owned().await.expect("this semaphore is never closed");
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, peer, permit))
}

/// One connection, with as many requests as it brings within its age.
async fn converse(stream: TcpStream, peer: SocketAddr, router: Router, mut stop: Stop) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        router.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        // Faults here are the peer's: broken HTTP, a reset, a timeout. They were answered where they could be.
        _ = connection.as_mut() => return,
        _ = stop.changed() => {}
        () = tokio::time::sleep(CONNECTION_AGE_MAX) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(FAREWELL_MAX, connection).await;
}

const CONNECTIONS_MAX: usize = 128;
/// From accept, or the last answer, to the end of the next request's header.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// A request head, and what is buffered of a body. Large enough that an absurd key is refused as a key.
const HEADER_BYTES_MAX: usize = (1 << 20) + (128 << 10);
/// Keeps a peer that never reads its answer from keeping its place for good.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(600);
const FAREWELL_MAX: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
