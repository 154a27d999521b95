//! Asking again. A service may go away with its answer: it is started by whoever asks next, and what is a job's is
//! there again.

use std::time::Duration;

use zbus::fdo;

/// A service that went away is asked as often as this, with a rest after each.
const TRIES: u32 = 50;
const REST: Duration = Duration::from_millis(200);

/// Asks, and asks again where the service went away meanwhile. For what may be asked twice.
pub async fn again<T>(ask: impl AsyncFn() -> zbus::Result<T>) -> zbus::Result<T> {
    let mut lost = false;
    for _ in 0..TRIES {
        let answer = ask().await;
        let Err(zbus::Error::FDO(error)) = &answer else { return answer };
        match **error {
            fdo::Error::NoReply(_) => lost = true,
            fdo::Error::ServiceUnknown(_) if lost => {}
            _ => return answer,
        }
        tokio::time::sleep(REST).await;
    }
    ask().await
}
