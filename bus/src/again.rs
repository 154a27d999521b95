//! Asking again. A service may go away with its answer: it is started by whoever asks next, and what is a job's is
//! there again. Or it has its hands full, and says so before it has done anything.

use std::time::Duration;

use banger_schemas::error::Kind;
use zbus::fdo;

/// A service that went away or is busy is asked as often as this, with a rest after each.
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
        match &answer {
            Err(zbus::Error::MethodError(name, ..)) if Kind::from_name(name) == Some(Kind::Busy) => {}
            Err(zbus::Error::FDO(error)) => match **error {
                fdo::Error::NoReply(_) if lost + 1 < most => lost += 1,
                fdo::Error::ServiceUnknown(_) if lost > 0 => {}
                _ => return answer,
            },
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

    fn busy() -> zbus::Error {
        let call = zbus::Message::method_call("/", "Get").build(&()).unwrap();
        zbus::Error::MethodError("dev.banger.Error.Busy".try_into().unwrap(), None, call)
    }

    /// Answers with these errors, then with how often it was asked.
    async fn asked<E: Clone + Into<zbus::Error>>(most: u32, errors: &[E]) -> (zbus::Result<usize>, usize) {
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
    async fn one_that_is_busy_is_asked_until_it_is_not() {
        assert_eq!(asked(3, &[busy(), busy()]).await, (Ok(2), 3));
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
