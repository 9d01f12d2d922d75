//! Owns asking a running server's admin port, for commands that need its help. Never retries. Lives on the caller's thread, which
//! waits.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use hyper::client::conn::http1;
use hyper::header;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::access::API_KEY;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AdminFault {
    #[error("nobody answers at {address} (listen.admin): {reason}; name the server's admin address with --admin")]
    Unreachable { address: SocketAddr, reason: String },
    #[error("the server at {address} did not answer as an admin port does: {reason}")]
    Answer { address: SocketAddr, reason: String },
    #[error("the server refused ({status}): {message}")]
    Refused { status: u16, message: String },
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// One request to `/v1`; the object of the answer.
///
/// # Errors
/// When nobody answers within [`PATIENCE`], or with a refusal.
pub fn ask(
    address: SocketAddr,
    api_key: Option<&[u8]>,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<Value, AdminFault> {
    let answer = |reason: String| AdminFault::Answer { address, reason };
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, address.to_string());
    if let Some(key) = api_key {
        request = request.header(API_KEY, key);
    }
    let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
    let request = request.body(body).map_err(|fault| answer(fault.to_string()))?;
    let exchange = async {
        let unreachable = |reason: String| AdminFault::Unreachable { address, reason };
        let stream = TcpStream::connect(address).await.map_err(|fault| unreachable(fault.to_string()))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|fault| unreachable(fault.to_string()))?;
        // It ends with the runtime, or when the server closes.
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(|fault| answer(fault.to_string()))?;
        let status = response.status();
        let bytes =
            to_bytes(Body::new(response.into_body()), ANSWER_BYTES_MAX).await.map_err(|fault| answer(fault.to_string()))?;
        let told: Value = serde_json::from_slice(&bytes).map_err(|fault| answer(fault.to_string()))?;
        match status.is_success() {
            true => Ok(told),
            false => {
                let message = told["error"]["message"].as_str().unwrap_or("it does not say why").to_owned();
                Err(AdminFault::Refused { status: status.as_u16(), message })
            }
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime
        .block_on(async { tokio::time::timeout(PATIENCE, exchange).await })
        .unwrap_or_else(|_| Err(AdminFault::Unreachable { address, reason: "no answer in time".to_owned() }))
}

/// Longer than the server takes for any request.
const PATIENCE: Duration = Duration::from_secs(15);
const ANSWER_BYTES_MAX: usize = 1 << 20;
