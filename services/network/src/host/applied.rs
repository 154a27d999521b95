//! The rules that a host was asked for, and how they come to hold: by what is added where that is all and is taken, else as a
//! whole.

use super::Error;
use crate::plan::Plan;
use crate::render::{Ruleset, addition};

#[derive(Debug, Default)]
pub(super) struct Applied {
    /// To be given back when they are lost.
    rules: Option<Ruleset>,
    /// Whether those are what is loaded.
    loaded: bool,
}

impl Applied {
    /// The whole text of what was asked for: closed, before anything was.
    pub(super) fn render(&self, plan: &Plan) -> String {
        self.rules.clone().unwrap_or_default().render(plan)
    }

    /// What is loaded may be something else by now.
    pub(super) fn doubt(&mut self) {
        self.loaded = false;
    }

    /// Has these hold. `load` takes a text for `nft -f -`.
    pub(super) async fn apply<F>(
        &mut self,
        rules: &Ruleset,
        plan: &Plan,
        load: impl Fn(String) -> F,
    ) -> Result<(), Error>
    where
        F: Future<Output = Result<(), Error>>,
    {
        let loaded = self.rules.as_ref().filter(|_| self.loaded);
        let added = loaded.and_then(|loaded| addition(loaded, rules, plan));
        self.loaded = false;
        let holds = match added {
            Some(nothing) if nothing.is_empty() => true,
            Some(text) => match load(text).await {
                Ok(()) => true,
                Err(error) => {
                    tracing::warn!(%error, "rules cannot be added and are loaded anew");
                    false
                }
            },
            None => false,
        };
        if !holds {
            load(rules.render(plan)).await?;
        }
        (self.rules, self.loaded) = (Some(rules.clone()), true);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::{Guest, Reach};
    use std::cell::RefCell;
    use std::net::Ipv4Addr;

    fn guest(vm: &str, last: u8) -> Guest {
        let address = Ipv4Addr::new(172, 16, 0, last);
        Guest { vm: vm.parse().unwrap(), mac: [2, 0, 0, 0, 0, last], address, reach: Reach::Internet }
    }

    /// What is loaded for these rules, by one who refuses the first so many texts.
    async fn loads(applied: &mut Applied, rules: &Ruleset, refused: usize) -> Vec<String> {
        let texts = RefCell::new(Vec::new());
        let load = |text| {
            texts.borrow_mut().push(text);
            let outcome = if texts.borrow().len() > refused { Ok(()) } else { Err(Error::Nft("no".to_owned())) };
            std::future::ready(outcome)
        };
        drop(applied.apply(rules, &Plan::rootless(), load).await);
        texts.into_inner()
    }

    #[tokio::test]
    async fn what_can_be_added_is_and_what_is_refused_is_loaded_anew() {
        let plan = Plan::rootless();
        let rules = |guests: &[&Guest]| {
            let guests = guests.iter().map(|guest| (*guest).clone()).collect();
            Ruleset { guests, ..Ruleset::default() }
        };
        let (a, b, c) = (guest("aaaaaaaaaa", 2), guest("bbbbbbbbbb", 3), guest("cccccccccc", 4));
        let [one, two, three] = [rules(&[&a]), rules(&[&a, &b]), rules(&[&a, &b, &c])];
        let mut applied = Applied::default();
        assert_eq!(applied.render(&plan), Ruleset::default().render(&plan));
        assert_eq!(loads(&mut applied, &one, 0).await, [one.render(&plan)], "it is not known what is there");
        assert!(loads(&mut applied, &one, 0).await.is_empty());
        let [b, c] = [addition(&one, &two, &plan).unwrap(), addition(&two, &three, &plan).unwrap()];
        assert_eq!(loads(&mut applied, &two, 0).await, [b]);
        assert_eq!(loads(&mut applied, &three, 1).await, [c.clone(), three.render(&plan)]);
        assert_eq!(loads(&mut applied, &two, 0).await, [two.render(&plan)], "somebody goes");
        // What was not loaded is not taken for loaded, nor given back.
        assert_eq!(loads(&mut applied, &three, 2).await, [c, three.render(&plan)]);
        assert_eq!(applied.render(&plan), two.render(&plan));
        assert_eq!(loads(&mut applied, &two, 0).await, [two.render(&plan)]);
        applied.doubt();
        assert_eq!(loads(&mut applied, &two, 0).await, [two.render(&plan)]);
    }
}
