//! Holds answers against the API's own document: every request of the tests that expects a status goes by here.

use std::sync::LazyLock;

use serde_json::{Value, json};
use stube::control::openapi;

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| openapi::document().expect("a document"));

/// The Operation Object of a request. Where paths overlap, the one without parameters counts.
fn operation(method: &str, path: &str) -> Option<&'static Value> {
    let fits = |template: &str| {
        let (template, path): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
        let same =
            |(expected, actual): (&&str, &&str)| expected.starts_with('{') && !actual.is_empty() || expected == actual;
        template.len() == path.len() && template.iter().zip(&path).all(same)
    };
    let paths = DOCUMENT["paths"].as_object().expect("paths");
    let mut found: Vec<_> = paths.iter().filter(|(template, _)| fits(template)).collect();
    found.sort_by_key(|(template, _)| template.matches('{').count());
    found.first()?.1.get(method.to_lowercase())
}

/// The answer must be one that the document has: its status, media type and body.
pub fn check(method: &str, path: &str, status: u16, media_type: &str, body: &str) {
    // The operator's own listener is not part of the document.
    if path.starts_with("/v1/node") {
        return;
    }
    let what = format!("{method} {path}: {status} {media_type} {body}");
    let Some(operation) = operation(method, path) else {
        assert!(matches!(status, 404 | 405) || !path.starts_with("/v1"), "not documented: {what}");
        return;
    };
    let response = &operation["responses"][status.to_string()];
    assert!(response.is_object(), "status not documented: {what}");
    let Some(content) = response["content"].as_object() else {
        assert!(body.is_empty(), "body not documented: {what}");
        return;
    };
    let media_type = media_type.split(';').next().unwrap_or_default();
    let content = content.get(media_type).unwrap_or_else(|| panic!("media type not documented: {what}"));
    let body = if media_type.ends_with("json") { serde_json::from_str(body).expect(&what) } else { Value::from(body) };
    let schema = json!({"allOf": [content["schema"]], "components": DOCUMENT["components"]});
    let validator = jsonschema::options().should_validate_formats(true).build(&schema).expect("a schema");
    let errors: Vec<_> = validator.iter_errors(&body).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}: {what}");
}
