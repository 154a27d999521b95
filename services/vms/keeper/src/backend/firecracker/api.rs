//! Firecracker's API: HTTP on a unix socket, one request at a time, with bounded answers.
//!
//! How long all of it may take is the caller's to say. Knows nothing of what is asked for.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::UnixStream;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::sleep;

use super::requests::Request;

/// The socket's name in the VMM's folder.
pub(super) const SOCKET: &str = "api.sock";
/// No answer's head, and no answer's body, is longer.
const MAX_ANSWER: usize = 64 * 1024;
/// What of a refusal is told.
const MAX_FAULT: usize = 512;
/// Between two looks for the socket of a VMM that starts.
const PAUSE: Duration = Duration::from_millis(2);

/// A connection to the API.
#[derive(Debug)]
pub(super) struct Api {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

/// What Firecracker says when it does not do what it is asked to.
#[derive(Debug, Deserialize)]
struct Fault {
    fault_message: String,
}

impl Api {
    /// Connects to the VMM in this folder, as soon as it listens.
    pub(super) async fn of(folder: &File) -> io::Result<Self> {
        // Through the descriptor: the folder's own path may be too long for a socket's address.
        let path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(SOCKET);
        let stream = loop {
            match UnixStream::connect(&path).await {
                Ok(stream) => break stream,
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                    sleep(PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        };
        let (sender, connection) =
            Builder::new().max_buf_size(MAX_ANSWER).handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        // What goes wrong on the connection is told to the request that waits for it.
        let driver = spawn_local(async move { drop(connection.await) });
        Ok(Api { sender, driver })
    }

    /// Asks for one thing, and has it or an error that says why not.
    pub(super) async fn put(&mut self, request: &Request) -> io::Result<()> {
        let Request { path, body } = request;
        let broken = |error: &dyn std::fmt::Display| io::Error::other(format!("no answer to PUT {path}: {error}"));
        let message = hyper::Request::put(path.as_str())
            .header(HOST, "localhost")
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(io::Error::other)?;
        let answer = self.sender.send_request(message).await.map_err(|error| broken(&error))?;
        let status = answer.status();
        let said = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(|error| broken(&error))?;
        if status.is_success() {
            return Ok(());
        }
        let fault = fault(&said.to_bytes()).unwrap_or_else(|| format!("status {}", status.as_u16()));
        Err(io::Error::other(format!("PUT {path} was refused: {fault}")))
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The reason in a refusal, as one line.
fn fault(body: &[u8]) -> Option<String> {
    let Fault { fault_message } = serde_json::from_slice(body).ok()?;
    let words: Vec<_> = fault_message.split(|c: char| c.is_control() || c.is_whitespace()).collect();
    let line: String = words.join(" ").chars().take(MAX_FAULT).collect();
    (!line.is_empty()).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_one_short_printable_line() {
        assert_eq!(fault(br#"{"fault_message": "no\u001b[31m such\nfile"}"#).unwrap(), "no [31m such file");
        let endless = format!(r#"{{"fault_message": "{}"}}"#, "x".repeat(10_000));
        assert_eq!(fault(endless.as_bytes()).unwrap().len(), MAX_FAULT);
        for nothing in [&b"{}"[..], b"", b"{\"fault_message\": 7}", b"{\"fault_message\": \"\"}"] {
            assert_eq!(fault(nothing), None);
        }
    }
}
