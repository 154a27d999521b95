//! What a pretend guest of the network's tests runs inside its namespace: a client, a server, or the probe. Its first
//! word goes to stdout.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a part of tests")]
#![allow(clippy::print_stdout, reason = "the test reads it")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use banger_network::host::{Host, Places, Rootless};

const LIMIT: Duration = Duration::from_secs(3);

fn main() {
    let role: Vec<String> = std::env::args().skip(1).collect();
    match role.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["dial", to] => match read_from(to.parse().unwrap()) {
            Ok(text) => println!("ok {text}"),
            Err(error) => println!("{error}"),
        },
        ["serve", port, text] => {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port.parse().unwrap())).unwrap();
            println!("ok listening");
            for stream in listener.incoming() {
                drop(stream.unwrap().write_all(text.as_bytes()));
            }
        }
        ["probe", helper] => {
            let nowhere = PathBuf::from("/nonexistent");
            let host = Rootless::new(Places { helper: helper.into(), runtime: nowhere.clone(), state: nowhere });
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            println!("ok {:?}", runtime.block_on(host.probe()).unwrap_err());
        }
        other => panic!("no such role: {other:?}"),
    }
}

/// Connects and reads to the end.
pub(crate) fn read_from(to: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}
