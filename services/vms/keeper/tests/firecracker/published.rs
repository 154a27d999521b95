//! The contract against Firecracker's own description of its API, where one is given.

use serde_json::Value;

use crate::contract::contract;

/// Where the published file is (`src/firecracker/swagger/firecracker.yaml` in Firecracker's source).
const FILE: &str = "FIRECRACKER_API";

#[test]
#[ignore = "needs Firecracker's API description: FIRECRACKER_API=/path/to/firecracker.yaml"]
fn the_contract_is_part_of_what_is_published() {
    let file = std::env::var(FILE).unwrap_or_else(|_| panic!("{FILE} is not set: it says where the description is"));
    let published: Value = serde_saphyr::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let contract = contract();
    for (path, ours) in &contract.requests {
        let put = &published["paths"][path]["put"];
        assert!(put.is_object(), "PUT {path} is not published");
        assert!(put["responses"][&contract.done].is_object(), "PUT {path} is not answered with {}", contract.done);
        includes(path, &published, &put["responses"]["default"]["schema"], &contract.refusal);
        let body = put["parameters"].as_array().unwrap().iter().find(|parameter| parameter["in"] == "body").unwrap();
        includes(path, &published, &body["schema"], ours);
    }
}

/// Whether all that `ours` says may be said by `theirs`, and all is there that must.
fn includes(path: &str, published: &Value, theirs: &Value, ours: &Value) {
    let theirs = resolved(published, theirs);
    for name in theirs["required"].as_array().into_iter().flatten() {
        assert!(ours["required"].as_array().is_some_and(|all| all.contains(name)), "{path} needs {name}");
    }
    for (name, our) in ours["properties"].as_object().unwrap() {
        let their = resolved(published, &theirs["properties"][name]);
        assert_eq!(their["type"], our["type"], "{path} {name}");
        for bound in ["minimum", "maximum"] {
            assert_eq!(their[bound], our[bound], "{path} {name} {bound}");
        }
        if let Some(values) = our["enum"].as_array() {
            let published = their["enum"].as_array().unwrap();
            assert!(values.iter().all(|value| published.contains(value)), "{path} {name} {values:?}");
        }
    }
}

fn resolved<'a>(published: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(reference) => published.pointer(reference.trim_start_matches('#')).unwrap(),
        None => schema,
    }
}
