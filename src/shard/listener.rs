//! Owns opening the client port: one SO_REUSEPORT listener per shard and address.
//!
//! Never accepts; shards do. Lives on the thread that starts the server.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use socket2::{Domain, Protocol, Socket, Type};

/// Why the client port cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenFault {
    #[error("{address} is in use by another process: stop it or choose another listen.client")]
    InUse { address: SocketAddr },
    #[error("cannot listen on {address}: {source}")]
    Other { address: SocketAddr, source: io::Error },
}

/// Opens `shards` listeners on `address`; all on the same port, also when `address` asks for any (port 0). Fails when another
/// process listens there: with SO_REUSEPORT alone it would take half of the clients unnoticed.
pub fn listen(address: SocketAddr, shards: u16, backlog: i32) -> Result<(SocketAddr, Vec<OwnedFd>), ListenFault> {
    let fault = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => ListenFault::InUse { address },
        _ => ListenFault::Other { address, source },
    };
    // An own socket without SO_REUSEPORT is refused if anybody has the port.
    let probe = socket(address).map_err(fault)?;
    probe.bind(&address.into()).map_err(fault)?;
    let bound = probe.local_addr().and_then(|bound| bound.as_socket().ok_or(io::ErrorKind::Unsupported.into())).map_err(fault)?;
    drop(probe);
    let open = || -> io::Result<OwnedFd> {
        let listener = socket(address)?;
        listener.set_reuse_port(true)?;
        listener.set_tcp_nodelay(true)?;
        listener.bind(&bound.into())?;
        listener.listen(backlog)?;
        Ok(listener.into())
    };
    let listeners = (0..shards).map(|_| open()).collect::<io::Result<Vec<_>>>().map_err(fault)?;
    Ok((bound, listeners))
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_share_a_port_and_strangers_are_refused() {
        let (bound, listeners) = listen("127.0.0.1:0".parse().unwrap(), 3, 16).unwrap();
        assert_eq!(listeners.len(), 3);
        assert_ne!(bound.port(), 0);
        assert!(matches!(listen(bound, 1, 16), Err(ListenFault::InUse { .. })));
        drop(listeners);
        assert!(listen(bound, 1, 16).is_ok());
    }
}
