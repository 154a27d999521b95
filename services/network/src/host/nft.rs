//! Loading rules. By the `nft` program, since it takes a whole ruleset as one transaction and says in words which
//! line it refuses; the crates for nftables run the same program, or link its library, for the same JSON.

use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use super::{Error, Refusal, tools};

const LIMIT: Duration = Duration::from_secs(10);
/// More of nft's complaint helps nobody.
const MESSAGE: usize = 1000;

/// Replaces the rules by these, all or nothing.
pub async fn load(text: &str) -> Result<(), Error> {
    run(&["-f", "-"], text).await.map(drop)
}

/// Whether both tables of ours are there.
pub async fn loaded() -> Result<bool, Error> {
    let tables = run(&["list", "tables"], "").await?;
    let tables = String::from_utf8_lossy(&tables.stdout);
    let has = |table: &str| tables.lines().any(|line| line.trim() == table);
    Ok(has("table ip banger") && has("table bridge banger"))
}

/// What nft answers to this command (libnftables-json(5)).
pub async fn ask(command: &str) -> Result<Vec<Value>, Error> {
    // As an argument: of a pipe, nft reads commands as JSON first, and then finds it empty.
    let output = run(&["-j", command], "").await?;
    let documents = serde_json::Deserializer::from_slice(&output.stdout).into_iter();
    documents.collect::<Result<_, _>>().map_err(|e| Error::Nft(format!("an unreadable list: {e}")))
}

async fn run(arguments: &[&str], input: &str) -> Result<Output, Error> {
    let nft = tools::find("nft").ok_or(Refusal::NftMissing)?;
    let mut child = Command::new(nft)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(Error::io("cannot run nft"))?;
    let stdin = child.stdin.take();
    let work = async {
        if let Some(mut stdin) = stdin {
            // An nft that ends early closes its end; its status says why.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let output = timeout(LIMIT, work)
        .await
        .map_err(|_| Error::Timeout { what: "nft", limit: LIMIT })?
        .map_err(Error::io("cannot run nft"))?;
    if output.status.success() {
        return Ok(output);
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(Error::Nft(complaint.trim().chars().take(MESSAGE).collect()))
}
