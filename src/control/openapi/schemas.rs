//! The schemas of requests and answers, drawn from the types that are read and written.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value};

/// Two generators, for what is optional in a request is not so in an answer.
pub struct Schemas {
    requests: SchemaGenerator,
    answers: SchemaGenerator,
}

impl Schemas {
    /// None yet.
    pub fn new() -> Self {
        let settings = || {
            SchemaSettings::draft2020_12().with(|settings| {
                settings.definitions_path = "/components/schemas".into();
                settings.meta_schema = None;
            })
        };
        Self {
            requests: settings().for_deserialize().into_generator(),
            answers: settings().for_serialize().into_generator(),
        }
    }

    /// Whether `{}` is no valid request of this type.
    pub fn requires_fields<T: JsonSchema>() -> bool {
        let schema = Self::new().requests.into_root_schema_for::<T>();
        schema.get("required").is_some()
    }

    /// For types that are read.
    pub fn requests(&mut self) -> &mut SchemaGenerator {
        &mut self.requests
    }

    /// For types that are written.
    pub fn answers(&mut self) -> &mut SchemaGenerator {
        &mut self.answers
    }

    /// All that were asked for, by name. A type that is both read and written must look the same both ways.
    pub fn components(mut self) -> Result<Map<String, Value>, String> {
        let mut all = self.answers.take_definitions(true);
        for (name, schema) in self.requests.take_definitions(true) {
            if all.get(&name).is_some_and(|known| *known != schema) {
                return Err(name);
            }
            all.insert(name, schema);
        }
        Ok(all)
    }
}
