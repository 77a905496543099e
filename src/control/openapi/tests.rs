//! The document against the router, the codes, itself, and its own schemas.

use std::collections::BTreeSet;

use super::*;
use crate::control::edge;
use crate::control::routes;
use crate::ledger::event::EventKind;

const METHODS: [&str; 6] = ["get", "head", "post", "put", "patch", "delete"];

fn the_document() -> Value {
    document().expect("types look the same both ways")
}

/// Every operation: method, path, and the Operation Object.
fn described(document: &Value) -> Vec<(String, String, Value)> {
    let mut all = Vec::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            assert!(METHODS.contains(&method.as_str()), "{method} {path}");
            all.push((method.clone(), path.clone(), operation.clone()));
        }
    }
    all
}

/// Every media type object with what it is of.
fn contents(document: &Value) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for (method, path, operation) in described(document) {
        let mut add = |what: &str, content: &Value| {
            for (media_type, object) in content.as_object().into_iter().flatten() {
                all.push((format!("{method} {path} {what} {media_type}"), object.clone()));
            }
        };
        add("request", &operation["requestBody"]["content"]);
        for (status, response) in operation["responses"].as_object().expect("responses") {
            add(status, &response["content"]);
        }
    }
    all
}

/// A validator that finds the document's components.
fn validator(document: &Value, schema: &Value) -> jsonschema::Validator {
    let root = json!({"allOf": [schema], "components": document["components"]});
    jsonschema::options().should_validate_formats(true).build(&root).expect("a schema")
}

#[test]
fn it_has_every_route_and_method_and_no_other() {
    let document = the_document();
    let routed: BTreeSet<String> = routes().iter().map(|(path, _)| (*path).to_owned()).collect();
    let listed = || edge::ROUTES.iter().filter(|(path, _)| path.starts_with('/'));
    assert_eq!(routed, listed().map(|(path, _)| (*path).to_owned()).collect(), "the router and edge::ROUTES");
    let mut expected = BTreeSet::new();
    for (path, methods) in listed() {
        let own = methods.iter().map(|method| method.to_lowercase());
        // OPTIONS is everywhere, HEAD wherever GET is; WHEP's HEAD is one of its own.
        let own = own.filter(|method| method != "options" && (method != "head" || *path == "/whep"));
        expected.extend(own.map(|method| format!("{method} {path}")));
    }
    let documented = described(&document).into_iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    assert_eq!(expected, documented, "edge::ROUTES and the document");
}

#[test]
fn it_has_every_code() {
    let reachable: BTreeSet<Code> = operations().iter().flat_map(Operation::codes).collect();
    // Of paths and methods that are not there, and of the operator's listener.
    let elsewhere = [Code::MethodNotAllowed, Code::InvalidConfig];
    let document = the_document();
    for code in Code::ALL {
        assert_eq!(reachable.contains(code), !elsewhere.contains(code), "{}", code.as_str());
        assert!(document["components"]["examples"][code.as_str()].is_object(), "{}", code.as_str());
    }
    assert_eq!(
        document["components"]["schemas"]["ProblemCode"]["enum"].as_array().map(Vec::len),
        Some(Code::ALL.len())
    );
}

#[test]
fn every_reference_leads_somewhere() {
    fn references<'a>(value: &'a Value, all: &mut Vec<&'a str>) {
        match value {
            Value::Object(object) => {
                all.extend(object.get("$ref").and_then(Value::as_str));
                object.values().for_each(|value| references(value, all));
            }
            Value::Array(array) => array.iter().for_each(|value| references(value, all)),
            _ => {}
        }
    }
    let document = the_document();
    let mut all = Vec::new();
    references(&document, &mut all);
    for reference in &all {
        let pointer = reference.strip_prefix('#').expect("in this document");
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    for kind in ["schemas", "parameters", "headers", "examples"] {
        for name in document["components"][kind].as_object().expect(kind).keys() {
            let used = all.iter().any(|reference| *reference == format!("#/components/{kind}/{name}"));
            // Examples of codes that no operation has are for people.
            assert!(used || kind == "examples", "nothing uses {kind}/{name}");
        }
    }
}

#[test]
fn every_operation_says_what_it_is() {
    let document = the_document();
    let mut ids = BTreeSet::new();
    for (method, path, operation) in described(&document) {
        let what = format!("{method} {path}");
        assert!(ids.insert(operation["operationId"].as_str().expect("an id").to_owned()), "{what}: id");
        for text in ["summary", "description"] {
            assert!(operation[text].as_str().is_some_and(|text| !text.is_empty()), "{what}: {text}");
        }
        assert!(TAGS.iter().any(|(tag, _)| operation["tags"] == json!([tag])), "{what}: tags");
        assert!(operation["security"].is_array(), "{what}: security");
        let statuses: Vec<_> = operation["responses"].as_object().expect("responses").keys().collect();
        assert!(statuses.iter().any(|status| status.starts_with('2')), "{what}: {statuses:?}");
        assert!(statuses.iter().any(|status| *status == "500"), "{what}: {statuses:?}");
        for name in path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
            let parameters = operation["parameters"].as_array().expect("parameters").iter();
            let resolved = parameters.map(|one| one["$ref"].as_str().expect("a reference").trim_start_matches('#'));
            let mut names = resolved.filter_map(|pointer| document.pointer(pointer)?["name"].as_str());
            assert!(names.any(|known| known == name), "{what}: {name}");
        }
    }
}

#[test]
fn every_body_has_an_example_that_fits() {
    let document = the_document();
    for (what, content) in contents(&document) {
        let validator = validator(&document, &content["schema"]);
        let mut examples: Vec<Value> = content.get("example").cloned().into_iter().collect();
        for (name, _) in content["examples"].as_object().into_iter().flatten() {
            examples.push(document["components"]["examples"][name]["value"].clone());
        }
        assert!(!examples.is_empty(), "{what}: no example");
        for example in examples {
            let errors: Vec<_> = validator.iter_errors(&example).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{what}: {errors:?} in {example}");
        }
    }
    for (name, parameter) in document["components"]["parameters"].as_object().expect("parameters") {
        assert!(validator(&document, &parameter["schema"]).is_valid(&parameter["example"]), "{name}");
    }
}

#[test]
fn it_holds_what_the_code_checks() {
    let document = the_document();
    let allocation = validator(&document, &json!({"$ref": "#/components/schemas/Allocation"}));
    for (body, fits) in [
        (json!({}), true),
        (json!({"name": "Küche / unten", "max_participants": 10_000, "max_duration_s": null}), true),
        (json!({"max_participants": 10_001}), false),
        (json!({"name": ".."}), false),
        (json!({"name": "a\nb"}), false),
        (json!({"nmae": "a"}), false),
    ] {
        assert_eq!(allocation.is_valid(&body), fits, "{body}");
    }
    let schemas = &document["components"]["schemas"];
    assert_eq!(schemas["TokenRequest"]["required"], json!(["identity"]));
    assert_eq!(schemas["Room"]["properties"]["max_duration_s"]["type"], json!(["integer", "null"]));
    let grants = validator(&document, &json!({"$ref": "#/components/schemas/GrantsRequest"}));
    assert!(!grants.is_valid(&json!({"canPublsh": true})) && grants.is_valid(&json!({"canPublish": true})));
}

#[test]
fn every_event_is_described_and_looks_like_its_example() {
    let document = the_document();
    let webhooks = document["webhooks"].as_object().expect("webhooks");
    assert_eq!(webhooks.len(), EventKind::ALL.len());
    for (kind, word, _) in EventKind::ALL {
        assert_eq!(json!(kind), word);
        let content = &webhooks[word]["post"]["requestBody"]["content"]["application/webhook+json"];
        let example = &content["example"];
        assert_eq!(example["event"], word);
        assert_eq!(example["id"], examples::EVENT);
        let is_of_room = example["quota"].is_null();
        assert_eq!(example["room"]["sid"] == examples::ROOM, is_of_room, "{word}");
        let validator = validator(&document, &content["schema"]);
        assert!(validator.is_valid(example), "{word}: {example}");
        for wrong in [json!({}), json!({"id": examples::EVENT, "event": "room_begun", "seq": 1, "created_at": 1})] {
            assert!(!validator.is_valid(&wrong), "{wrong}");
        }
    }
}
