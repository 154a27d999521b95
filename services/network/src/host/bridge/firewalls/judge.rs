//! Which firewall drops VMs' packets, what it is to be told, and where. Pure: from nft's JSON to nft's commands.
//!
//! Docker and ufw keep their rules by iptables, which reads ours only if they are made of what it knows: the links,
//! a counter, a verdict and a comment. A single rule of another kind would make the whole table unusable to them.

use serde_json::Value;

/// What our rules in others' chains are told by.
const COMMENT: &str = "banger: VMs' packets, of which banger's own table decides";

/// A chain of any table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain {
    family: String,
    table: String,
    name: String,
    /// Of a base chain: what it sees, and what becomes of what reaches its end.
    hook: Option<String>,
    drops: bool,
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    handle: u64,
    comment: Option<String>,
    text: String,
    /// What it does to every packet, if it does.
    always: Option<Always>,
    accepts: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Always {
    Drop,
    Return,
}

/// Where a tool keeps a place for others' rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The chain DOCKER-USER.
    Docker,
    /// The chain of `ufw route allow`.
    Ufw,
    /// The zone `trusted`, over the bus.
    Firewalld,
}

/// What is to be done about a chain that drops forwarded packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Tell(Place),
    /// Nobody's that we know.
    Unknown {
        table: String,
        chain: String,
    },
}

impl Place {
    pub(super) fn key(self) -> &'static str {
        match self {
            Place::Docker => "docker",
            Place::Ufw => "ufw",
            Place::Firewalld => "firewalld",
        }
    }

    pub(super) fn of_key(key: &str) -> Option<Self> {
        [Place::Docker, Place::Ufw, Place::Firewalld].into_iter().find(|place| place.key() == key)
    }

    pub(super) fn tool(self) -> &'static str {
        match self {
            Place::Docker => "Docker's firewall",
            Place::Ufw => "ufw",
            Place::Firewalld => "firewalld",
        }
    }

    /// What an administrator would do.
    pub(super) fn by_hand(self, bridge: &str) -> String {
        match self {
            Place::Docker => format!(
                "'sudo iptables -I DOCKER-USER -i {bridge} -j ACCEPT' and '… -o {bridge} …' let them pass until the next boot"
            ),
            Place::Ufw => format!("'sudo ufw route allow in on {bridge}' lets them pass"),
            Place::Firewalld => {
                format!(
                    "'sudo firewall-cmd --permanent --zone=trusted --add-interface={bridge}' and '--reload' let them pass"
                )
            }
        }
    }

    /// The chain, and whether replies need a rule of their own there (ufw lets all replies pass).
    fn chain(self) -> Option<(&'static str, bool)> {
        match self {
            Place::Docker => Some(("DOCKER-USER", true)),
            Place::Ufw => Some(("ufw-user-forward", false)),
            Place::Firewalld => None,
        }
    }

    fn find(self, chains: &[Chain]) -> Option<&Chain> {
        let (name, _) = self.chain()?;
        chains.iter().find(|chain| chain.is("ip", "filter", name))
    }

    /// Commands that tell it, none when it knows; `None` for one that takes no rules. An administrator's own rules stay
    /// before ours, so that what they drop stays dropped; a last `return` stays behind.
    pub(super) fn rules(self, bridge: &str, chains: &[Chain]) -> Option<String> {
        let (name, replies) = self.chain()?;
        let chain = self.find(chains)?;
        let last = chain.rules.last().filter(|rule| rule.always == Some(Always::Return));
        let how = last.map_or_else(
            || format!("add rule ip filter {name}"),
            |last| format!("insert rule ip filter {name} position {}", last.handle),
        );
        let links: &[&str] = if replies { &["iifname", "oifname"] } else { &["iifname"] };
        let missing =
            links.iter().filter(|link| !chain.rules.iter().any(|rule| rule.is_ours() && rule.text.contains(**link)));
        Some(missing.map(|link| format!("{how} {link} \"{bridge}\" counter accept comment \"{COMMENT}\"\n")).collect())
    }

    /// Commands that take it back.
    pub(super) fn without_rules(self, chains: &[Chain]) -> Option<String> {
        let (name, _) = self.chain()?;
        let rules = self.find(chains).map_or(&[][..], |chain| &chain.rules);
        let ours = rules.iter().filter(|rule| rule.is_ours());
        Some(ours.map(|rule| format!("delete rule ip filter {name} handle {}\n", rule.handle)).collect())
    }
}

impl Chain {
    fn is(&self, family: &str, table: &str, name: &str) -> bool {
        (self.family.as_str(), self.table.as_str(), self.name.as_str()) == (family, table, name)
    }

    /// Whether it sees what the host forwards, and is not ours.
    fn forwards(&self) -> bool {
        self.hook.as_deref() == Some("forward")
            && matches!(self.family.as_str(), "ip" | "inet")
            && self.table != "banger"
    }

    /// Whether what it does not know is dropped, by its policy or its last rule.
    fn is_closed(&self) -> bool {
        self.drops || self.rules.last().is_some_and(|rule| rule.always == Some(Always::Drop))
    }

    /// Whether an administrator has thought of us.
    fn knows(&self, bridge: &str) -> bool {
        self.rules.iter().any(|rule| rule.accepts && rule.text.contains(&format!("\"{bridge}\"")))
    }
}

impl Rule {
    fn is_ours(&self) -> bool {
        self.comment.as_deref() == Some(COMMENT)
    }
}

/// What the chains that drop forwarded packets ask for.
pub(super) fn judge(chains: &[Chain], bridge: &str) -> Vec<Verdict> {
    let closed = chains.iter().filter(|chain| chain.forwards() && chain.is_closed() && !chain.knows(bridge));
    let mut verdicts: Vec<Verdict> = closed
        .map(|chain| match (chain.family.as_str(), chain.table.as_str(), chain.name.as_str()) {
            ("ip", "filter", "FORWARD") if Place::Docker.find(chains).is_some() => Verdict::Tell(Place::Docker),
            ("ip", "filter", "FORWARD") if Place::Ufw.find(chains).is_some() => Verdict::Tell(Place::Ufw),
            ("inet", "firewalld", _) => Verdict::Tell(Place::Firewalld),
            _ => Verdict::Unknown { table: format!("{} {}", chain.family, chain.table), chain: chain.name.clone() },
        })
        .collect();
    verdicts.dedup();
    verdicts
}

pub(super) fn has_firewalld(chains: &[Chain]) -> bool {
    chains.iter().any(|chain| chain.table == "firewalld")
}

/// Chains from `list chains`.
pub(super) fn chains(documents: &[Value]) -> Vec<Chain> {
    objects(documents, "chain")
        .filter_map(|chain| {
            let text = |key: &str| chain.get(key)?.as_str().map(str::to_owned);
            Some(Chain {
                family: text("family")?,
                table: text("table")?,
                name: text("name")?,
                hook: text("hook"),
                drops: text("policy").as_deref() == Some("drop"),
                rules: Vec::new(),
            })
        })
        .collect()
}

/// Commands that list the chains whose rules matter.
pub(super) fn worth_reading(chains: &[Chain]) -> Vec<String> {
    let places = [Place::Docker, Place::Ufw].into_iter().filter_map(|place| place.find(chains));
    let all = chains.iter().filter(|chain| chain.forwards()).chain(places);
    all.map(|chain| format!("list chain {} {} {}", chain.family, chain.table, chain.name)).collect()
}

/// The chains with the rules that were listed.
pub(super) fn with_rules(mut chains: Vec<Chain>, documents: &[Value]) -> Vec<Chain> {
    for listed in objects(documents, "rule") {
        let text = |key: &str| listed.get(key).and_then(Value::as_str).unwrap_or_default();
        let Some(chain) = chains.iter_mut().find(|chain| chain.is(text("family"), text("table"), text("chain"))) else {
            continue;
        };
        let what = listed.get("expr").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        chain.rules.push(Rule {
            handle: listed.get("handle").and_then(Value::as_u64).unwrap_or_default(),
            comment: listed.get("comment").and_then(Value::as_str).map(str::to_owned),
            text: listed.get("expr").map(Value::to_string).unwrap_or_default(),
            always: always(what),
            accepts: what.iter().any(|part| part.get("accept").is_some()),
        });
    }
    chains
}

/// The verdict of a rule without a condition.
fn always(what: &[Value]) -> Option<Always> {
    let has = |part: &Value, key: &str| part.get(key).is_some();
    let (verdict, rest) = what.split_last()?;
    if !rest.iter().all(|part| has(part, "counter") || has(part, "log")) {
        return None;
    }
    if has(verdict, "drop") || has(verdict, "reject") {
        return Some(Always::Drop);
    }
    has(verdict, "return").then_some(Always::Return)
}

/// Objects of one kind in nft's answers.
fn objects<'a>(documents: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    let lists = documents.iter().filter_map(|document| document.get("nftables")?.as_array());
    lists.flatten().filter_map(move |object| object.get(kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn world(policy: &str, chains: &[(&str, &[Value])]) -> Vec<Chain> {
        let mut all = vec![json!({"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "handle": 1,
            "type": "filter", "hook": "forward", "prio": 0, "policy": policy}})];
        let mut rules = Vec::new();
        for (name, expressions) in chains {
            if *name != "FORWARD" {
                all.push(json!({"chain": {"family": "ip", "table": "filter", "name": name, "handle": 2}}));
            }
            for (n, expression) in expressions.iter().enumerate() {
                rules.push(json!({"rule": {"family": "ip", "table": "filter", "chain": name, "handle": 10 + n,
                    "expr": expression}}));
            }
        }
        with_rules(super::chains(&[json!({ "nftables": all })]), &[json!({ "nftables": rules })])
    }

    fn ret() -> Value {
        json!([{"counter": {"packets": 0, "bytes": 0}}, {"return": null}])
    }

    #[test]
    fn an_open_firewall_is_told_nothing() {
        assert_eq!(judge(&world("accept", &[("DOCKER-USER", &[ret()])]), "br-banger"), []);
    }

    #[test]
    fn docker_is_told_before_its_last_return_and_once() {
        let closed = world("drop", &[("DOCKER-USER", &[ret()])]);
        assert_eq!(judge(&closed, "br-banger"), [Verdict::Tell(Place::Docker)]);
        let told = Place::Docker.rules("br-banger", &closed).unwrap();
        assert_eq!(told.lines().count(), 2);
        assert!(
            told.starts_with(
                "insert rule ip filter DOCKER-USER position 10 iifname \"br-banger\" counter accept comment"
            )
        );

        let mut knows = closed;
        for (handle, link) in [(3, "iifname"), (4, "oifname")] {
            let (comment, text) = (Some(COMMENT.to_owned()), format!("{link} \"br-banger\""));
            knows[1].rules.insert(0, Rule { handle, comment, text, always: None, accepts: true });
        }
        assert_eq!(Place::Docker.rules("br-banger", &knows).unwrap(), "");
        assert_eq!(
            Place::Docker.without_rules(&knows).unwrap(),
            "delete rule ip filter DOCKER-USER handle 4\ndelete rule ip filter DOCKER-USER handle 3\n"
        );
    }

    #[test]
    fn ufw_is_told_behind_its_users_rules() {
        let deny =
            json!([{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "eth9"}}, {"drop": null}]);
        let closed = world("drop", &[("ufw-user-forward", &[deny])]);
        assert_eq!(judge(&closed, "br-banger"), [Verdict::Tell(Place::Ufw)]);
        let told = Place::Ufw.rules("br-banger", &closed).unwrap();
        assert!(told.starts_with("add rule ip filter ufw-user-forward iifname") && told.lines().count() == 1, "{told}");
    }

    #[test]
    fn who_drops_by_a_last_rule_drops_too_and_an_administrator_is_believed() {
        let last =
            json!([{"counter": {"packets": 0, "bytes": 0}}, {"reject": {"type": "icmpx", "expr": "admin-prohibited"}}]);
        let closed = world("accept", &[("FORWARD", std::slice::from_ref(&last))]);
        let unknown = Verdict::Unknown { table: "ip filter".to_owned(), chain: "FORWARD".to_owned() };
        assert_eq!(judge(&closed, "br-banger"), [unknown]);
        let thought = json!([{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "br-banger"}}, {"accept": null}]);
        assert_eq!(judge(&world("accept", &[("FORWARD", &[thought, last])]), "br-banger"), []);
    }
}
