//! Asking again. A service may go away with its answer: it is started by whoever asks next, and what is a job's is
//! there again.

use std::time::Duration;

use zbus::fdo;

/// A service that went away is asked as often as this, with a rest after each.
const TRIES: u32 = 50;
const REST: Duration = Duration::from_millis(200);

/// Asks, and asks again where the service went away meanwhile. For what may be asked twice.
pub async fn again<T, A: Future<Output = zbus::Result<T>>>(ask: impl Fn() -> A) -> zbus::Result<T> {
    again_unless_lost(TRIES, ask).await
}

/// The same, until the service has gone away with its answer as often as `most`: it may be the question that it dies of.
pub async fn again_unless_lost<T, A>(most: u32, ask: impl Fn() -> A) -> zbus::Result<T>
where
    A: Future<Output = zbus::Result<T>>,
{
    let mut lost = 0;
    for _ in 0..TRIES {
        let answer = ask().await;
        let Err(zbus::Error::FDO(error)) = &answer else { return answer };
        match **error {
            fdo::Error::NoReply(_) if lost + 1 < most => lost += 1,
            fdo::Error::ServiceUnknown(_) if lost > 0 => {}
            _ => return answer,
        }
        tokio::time::sleep(REST).await;
    }
    ask().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn gone() -> fdo::Error {
        fdo::Error::NoReply("it died".into())
    }

    fn absent() -> fdo::Error {
        fdo::Error::ServiceUnknown("it is not back".into())
    }

    /// Answers with these errors, then with how often it was asked.
    async fn asked(most: u32, errors: &[fdo::Error]) -> (zbus::Result<usize>, usize) {
        let asked = Cell::new(0);
        let answer = again_unless_lost(most, || {
            let at = asked.replace(asked.get() + 1);
            std::future::ready(errors.get(at).map_or(Ok(at), |error| Err(error.clone().into())))
        });
        (answer.await, asked.get())
    }

    #[tokio::test]
    async fn a_service_that_went_away_is_asked_again_until_it_is_back() {
        assert_eq!(asked(3, &[gone(), absent(), absent()]).await, (Ok(3), 4));
        assert_eq!(asked(3, &[gone(), gone()]).await, (Ok(2), 3));
    }

    #[tokio::test]
    async fn one_that_dies_of_the_question_is_let_alone() {
        let (answer, times) = asked(3, &[gone(), absent(), gone(), gone(), gone()]).await;
        assert!(answer.is_err());
        assert_eq!(times, 4);
    }

    #[tokio::test]
    async fn one_that_was_never_there_or_refuses_is_asked_once() {
        for error in [absent(), fdo::Error::AccessDenied("no".into())] {
            let (answer, times) = asked(3, &[error]).await;
            assert!(answer.is_err());
            assert_eq!(times, 1);
        }
    }
}
