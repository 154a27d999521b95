//! slirp4netns' control socket: one JSON request and one reply a connection.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::host::Error;
use crate::plan::UPLINK_ADDRESS;
use crate::render::{Protocol, Publication};

const LIMIT: Duration = Duration::from_secs(5);
/// Room for the list of some thousand forwards.
const LONGEST: u64 = 1 << 20;

/// A port that slirp4netns listens at.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Forward {
    pub id: u64,
    proto: String,
    host_addr: Ipv4Addr,
    host_port: u16,
    guest_port: u16,
}

impl Forward {
    pub fn protocol(&self) -> Protocol {
        if self.proto == "udp" { Protocol::Udp } else { Protocol::Tcp }
    }

    pub fn outside(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.host_addr, self.host_port)
    }

    /// Whether it is this publication already.
    pub fn is(&self, publication: &Publication) -> bool {
        (self.protocol(), self.outside(), self.guest_port)
            == (publication.protocol, publication.outside, publication.internal)
    }
}

/// The socket of a running slirp4netns.
#[derive(Debug)]
pub struct Slirp {
    socket: PathBuf,
}

impl Slirp {
    pub fn at(socket: PathBuf) -> Self {
        Slirp { socket }
    }

    pub async fn list(&self) -> Result<Vec<Forward>, Error> {
        let reply = self.ask(&json!({ "execute": "list_hostfwd" })).await?;
        let entries = reply.get("entries").cloned().unwrap_or(Value::Null);
        serde_json::from_value(entries).map_err(|e| Error::Uplink(format!("an unreadable list of ports: {e}")))
    }

    pub async fn add(&self, publication: &Publication) -> Result<(), Error> {
        let arguments = json!({
            "proto": publication.protocol.as_str(),
            "host_addr": publication.outside.ip(),
            "host_port": publication.outside.port(),
            "guest_addr": UPLINK_ADDRESS,
            "guest_port": publication.internal,
        });
        self.ask(&json!({ "execute": "add_hostfwd", "arguments": arguments })).await.map(drop)
    }

    pub async fn remove(&self, id: u64) -> Result<(), Error> {
        self.ask(&json!({ "execute": "remove_hostfwd", "arguments": { "id": id } })).await.map(drop)
    }

    async fn ask(&self, request: &Value) -> Result<Value, Error> {
        let bytes = timeout(LIMIT, self.exchange(request))
            .await
            .map_err(|_| Error::Timeout { what: "slirp4netns", limit: LIMIT })?
            .map_err(|e| Error::Uplink(format!("no answer at its socket: {e}")))?;
        let reply: Value = serde_json::from_slice(&bytes).map_err(|e| Error::Uplink(format!("nonsense: {e}")))?;
        match reply.get("error") {
            Some(error) => Err(Error::Uplink(error.get("desc").and_then(Value::as_str).unwrap_or("?").to_owned())),
            None => Ok(reply),
        }
    }

    async fn exchange(&self, request: &Value) -> io::Result<Vec<u8>> {
        let mut stream = connect(&self.socket).await?;
        stream.write_all(request.to_string().as_bytes()).await?;
        stream.shutdown().await?;
        let mut reply = Vec::new();
        stream.take(LONGEST).read_to_end(&mut reply).await?;
        Ok(reply)
    }
}

/// Connects through the folder's descriptor: a socket's address holds 108 bytes, and a folder's path may be longer.
async fn connect(socket: &Path) -> io::Result<UnixStream> {
    let (Some(folder), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let folder = File::open(folder)?;
    UnixStream::connect(Path::new(&format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name)).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;

    /// Answers one request with these bytes; gives the request back.
    async fn once(reply: &'static str) -> (Slirp, tempfile::TempDir, tokio::task::JoinHandle<String>) {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("s")).unwrap();
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = String::new();
            stream.read_to_string(&mut request).await.unwrap();
            stream.write_all(reply.as_bytes()).await.unwrap();
            request
        });
        (Slirp::at(folder.path().join("s")), folder, served)
    }

    #[tokio::test]
    async fn a_list_is_read_and_an_error_is_told() {
        let (slirp, _folder, _) = once(
            r#"{"entries":[{"id":1,"proto":"tcp","host_addr":"127.77.1.2","host_port":3000,"guest_addr":"10.0.2.100","guest_port":20000}]}"#,
        )
        .await;
        let list = slirp.list().await.unwrap();
        assert_eq!((list[0].id, list[0].outside()), (1, "127.77.1.2:3000".parse().unwrap()));

        let (slirp, _folder, served) = once(r#"{"error":{"desc":"bad request"}}"#).await;
        assert!(matches!(slirp.remove(4).await, Err(Error::Uplink(text)) if text == "bad request"));
        assert_eq!(served.await.unwrap(), r#"{"arguments":{"id":4},"execute":"remove_hostfwd"}"#);

        let (slirp, _folder, _) = once("}").await;
        assert!(matches!(slirp.list().await, Err(Error::Uplink(_))));
    }
}
