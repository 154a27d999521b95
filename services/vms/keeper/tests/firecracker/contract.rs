//! What goes over the wire, held against `contract.json`: Firecracker's published API as far as it is used, and what
//! is promised beyond it (paths are descriptors, nothing else is asked for).

use std::collections::BTreeMap;

use banger_schemas::keeper::Event;
use serde::Deserialize;
use serde_json::Value;

use crate::stage::Stage;

#[derive(Deserialize)]
pub(crate) struct Contract {
    pub(crate) order: Vec<String>,
    /// By the paths of the published description.
    pub(crate) requests: BTreeMap<String, Value>,
    pub(crate) done: String,
    pub(crate) refusal: Value,
}

pub(crate) fn contract() -> Contract {
    serde_json::from_str(include_str!("contract.json")).unwrap()
}

impl Contract {
    fn schema(&self, path: &str) -> &Value {
        let fits = |(described, _): &(&String, &Value)| match described.split_once('{') {
            Some((prefix, _)) => path.strip_prefix(prefix).is_some_and(|id| !id.contains('/')),
            None => *described == path,
        };
        self.requests.iter().find(fits).unwrap_or_else(|| panic!("{path} is not in the contract")).1
    }

    pub(crate) fn check(&self, request: &str, body: &Value) {
        let path = request.strip_prefix("PUT ").unwrap();
        let validator = jsonschema::validator_for(self.schema(path)).unwrap();
        let errors: Vec<_> = validator.iter_errors(body).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{request} {body}: {errors:?}");
        // An id is said twice.
        for id in ["drive_id", "iface_id"] {
            assert!(body[id].is_null() || path.ends_with(body[id].as_str().unwrap()), "{request} {body}");
        }
    }
}

#[tokio::test]
async fn every_request_keeps_the_contract_and_its_place() {
    let contract = contract();
    let without_network: Vec<_> = contract.order.iter().filter(|r| !r.contains("network")).collect();
    for volatile in [false, true] {
        let stage = Stage::with("");
        let client = stage.keeper.client().await;
        assert_eq!(stage.launch(&client, "print:hello", volatile).await, Event::Done);
        let requests = stage.requests();
        assert_eq!(requests.iter().map(|(request, _)| request).collect::<Vec<_>>(), without_network);
        for (request, body) in requests {
            contract.check(&request, &body);
        }
    }
}

#[test]
fn the_contract_refuses_what_it_does_not_know() {
    let contract = contract();
    for (path, body) in [
        ("PUT /vsock", r#"{"guest_cid": 2, "uds_path": "a"}"#),
        ("PUT /vsock", r#"{"guest_cid": 3, "uds_path": "/a"}"#),
        ("PUT /entropy", r#"{"anything": 1}"#),
        ("PUT /drives/image", r#"{"drive_id": "image"}"#),
        ("PUT /balloon", "{}"),
    ] {
        let body = body.parse().unwrap();
        let checked = std::panic::catch_unwind(|| contract.check(path, &body));
        assert!(checked.is_err(), "{path} {body}");
    }
}
