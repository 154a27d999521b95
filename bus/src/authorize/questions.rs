//! How many questions about one user wait for an answer at once: bounded, so that nobody fills a service with them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use banger_schemas::error::{Error, Kind, Result};

use crate::Caller;

/// Questions that polkit answers by itself, in a moment.
const MOMENTS: usize = 64;
/// Questions that it may ask a person.
const PERSONS: usize = 8;

/// A user, and whether a person may be asked.
type Key = (u32, bool);

/// What waits, by user.
#[derive(Debug, Clone, Default)]
pub(super) struct Questions {
    // Never held over an await.
    waiting: Arc<Mutex<HashMap<Key, usize>>>,
}

/// A question's place; free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    questions: Questions,
    key: Key,
}

impl Questions {
    pub(super) fn place(&self, caller: &Caller) -> Result<Place> {
        let most = if caller.interactive { PERSONS } else { MOMENTS };
        let key = (caller.uid, caller.interactive);
        let busy = || Error::new(Kind::Busy, format!("{most} requests of yours wait for polkit: answer them first"));
        let mut waiting = self.waiting.lock().map_err(Error::internal)?;
        let count = waiting.entry(key).or_default();
        if *count >= most {
            return Err(busy());
        }
        *count += 1;
        Ok(Place { questions: self.clone(), key })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Ok(mut waiting) = self.questions.waiting.lock() else { return };
        if let Some(count) = waiting.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_can_fill_only_its_own_places() {
        let questions = Questions::default();
        let asking = |uid| Caller { interactive: true, ..Caller::of_uid(uid) };
        let mut places: Vec<Place> = (0..PERSONS).map(|_| questions.place(&asking(1000)).unwrap()).collect();
        assert_eq!(questions.place(&asking(1000)).unwrap_err().kind, Kind::Busy);
        assert!(questions.place(&Caller::of_uid(1000)).is_ok() && questions.place(&asking(1001)).is_ok());
        places.pop();
        assert!(questions.place(&asking(1000)).is_ok());
        drop(places);
        assert!(questions.waiting.lock().unwrap().is_empty());
    }
}
