//! One operation of the document: what it takes, what it answers, and how it can fail.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::schemas::Schemas;
use crate::control::code::Code;

/// The media type of errors.
const PROBLEM: &str = "application/problem+json";

/// Who may call.
#[derive(Clone, Copy)]
enum Caller {
    /// Anyone.
    Anyone,
    /// A map service with its key, or with a token that has one of these grants.
    Server(&'static str),
    /// A participant with their token.
    Client,
    /// Whoever knows the session's URL; a token that comes with it must be the participant's.
    Holder,
}

impl Caller {
    fn security(self) -> Value {
        match self {
            Self::Anyone => json!([]),
            Self::Server(_) => json!([{"key": []}, {"token": []}]),
            Self::Client => json!([{"token": []}]),
            Self::Holder => json!([{}, {"token": []}]),
        }
    }

    fn codes(self) -> &'static [Code] {
        const ALL: [Code; 5] = [
            Code::MissingCredentials,
            Code::InvalidCredentials,
            Code::InvalidToken,
            Code::TokenExpired,
            Code::Forbidden,
        ];
        match self {
            Self::Anyone => &[],
            Self::Server(_) | Self::Client => &ALL,
            Self::Holder => ALL.split_at(1).1,
        }
    }

    fn about(self) -> String {
        match self {
            Self::Anyone => "Needs no credentials.".to_owned(),
            Self::Server(grants) => format!("Needs key and secret, or a token with {grants}."),
            Self::Client => "Needs a participant's token: `roomJoin` and `room`.".to_owned(),
            Self::Holder => {
                "Whoever knows the session's URL may; a token that is sent must be the participant's.".to_owned()
            }
        }
    }
}

type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// A body of one media type.
struct Content {
    media_type: &'static str,
    schema: SchemaOf,
    example: Value,
}

/// A success.
struct Answer {
    status: u16,
    about: &'static str,
    contents: Vec<Content>,
    headers: Vec<&'static str>,
}

/// What one method of one path does. Failures that follow from its parts are added by itself.
pub struct Operation {
    pub method: &'static str,
    pub path: &'static str,
    id: &'static str,
    summary: &'static str,
    about: &'static str,
    tag: &'static str,
    caller: Caller,
    parameters: Vec<&'static str>,
    request: Vec<Content>,
    /// Whether something must come. An empty body counts as `{}`, which some types are content with.
    request_required: bool,
    answers: Vec<Answer>,
    codes: Vec<Code>,
}

impl Operation {
    /// An operation that anyone may call, and that answers nothing yet.
    pub fn new(
        tag: &'static str,
        method: &'static str,
        path: &'static str,
        id: &'static str,
        summary: &'static str,
    ) -> Self {
        Self {
            method,
            path,
            id,
            summary,
            about: "",
            tag,
            caller: Caller::Anyone,
            parameters: Vec::new(),
            request: Vec::new(),
            request_required: false,
            answers: Vec::new(),
            codes: vec![Code::Internal, Code::Timeout],
        }
    }

    /// More than the summary says.
    pub fn about(self, about: &'static str) -> Self {
        Self { about, ..self }
    }

    /// For map services; `grants` are those of which a token needs one.
    pub fn for_servers(self, grants: &'static str) -> Self {
        Self { caller: Caller::Server(grants), ..self }
    }

    /// For participants.
    pub fn for_clients(self) -> Self {
        Self { caller: Caller::Client, ..self }
    }

    /// For whoever knows the session's URL.
    pub fn for_holders(self) -> Self {
        Self { caller: Caller::Holder, ..self }
    }

    /// Parameters, by their names in [`super::parameters::parameters`].
    pub fn with(mut self, parameters: &[&'static str]) -> Self {
        self.parameters.extend(parameters);
        self
    }

    /// Takes JSON.
    pub fn takes<T: JsonSchema>(mut self, example: Value) -> Self {
        let content = Content { media_type: "application/json", schema: SchemaGenerator::subschema_for::<T>, example };
        self.request.push(content);
        self.request_required |= Schemas::requires_fields::<T>();
        self.fails(&[Code::InvalidJson, Code::InvalidRequest]).reads_a_body()
    }

    /// Takes SDP, or a fragment of it.
    pub fn takes_sdp(mut self, media_type: &'static str, example: &'static str) -> Self {
        let content = Content { media_type, schema: SchemaGenerator::subschema_for::<String>, example: example.into() };
        self.request.push(content);
        self.request_required = true;
        self.fails(&[Code::InvalidSdp]).reads_a_body()
    }

    fn reads_a_body(self) -> Self {
        self.fails(&[Code::IncompleteBody, Code::BodyTooLarge, Code::UnsupportedMediaType])
    }

    /// Answers JSON.
    pub fn answers<T: JsonSchema>(self, status: u16, about: &'static str, example: Value) -> Self {
        let content = Content { media_type: "application/json", schema: SchemaGenerator::subschema_for::<T>, example };
        self.answer(status, about, vec![content])
    }

    /// Answers a text of this media type.
    pub fn answers_text(
        self,
        status: u16,
        about: &'static str,
        media_type: &'static str,
        example: &'static str,
    ) -> Self {
        let content = Content { media_type, schema: SchemaGenerator::subschema_for::<String>, example: example.into() };
        // One status can have several kinds of body.
        if let Some(last) = self.answers.last()
            && last.status == status
        {
            return self.also(content);
        }
        self.answer(status, about, vec![content])
    }

    /// Answers without a body.
    pub fn answers_nothing(self, status: u16, about: &'static str) -> Self {
        self.answer(status, about, Vec::new())
    }

    fn answer(mut self, status: u16, about: &'static str, contents: Vec<Content>) -> Self {
        self.answers.push(Answer { status, about, contents, headers: Vec::new() });
        self
    }

    fn also(mut self, content: Content) -> Self {
        if let Some(last) = self.answers.last_mut() {
            last.contents.push(content);
        }
        self
    }

    /// Headers of the answer described last, by their names in [`super::parameters::headers`].
    pub fn headers(mut self, names: &[&'static str]) -> Self {
        if let Some(last) = self.answers.last_mut() {
            last.headers.extend(names);
        }
        self
    }

    /// Can fail like this, beside what follows from its other parts.
    pub fn fails(mut self, codes: &[Code]) -> Self {
        self.codes.extend(codes);
        self
    }

    /// The codes it can fail with, in their own order.
    pub fn codes(&self) -> Vec<Code> {
        let mut codes = self.codes.clone();
        codes.extend(self.caller.codes());
        // A path or query that is no UTF-8.
        if self.path.contains('{') || !self.parameters.is_empty() {
            codes.push(Code::BadRequest);
        }
        codes.sort_unstable();
        codes.dedup();
        codes
    }

    /// The Operation Object.
    pub fn describe(&self, schemas: &mut Schemas) -> Value {
        let about = [self.about, &self.caller.about()].join(" ").trim().to_owned();
        let mut object = json!({
            "operationId": self.id,
            "summary": self.summary,
            "description": about,
            "tags": [self.tag],
            "security": self.caller.security(),
            "responses": self.responses(schemas),
        });
        if !self.parameters.is_empty() {
            let reference = |name: &&str| json!({"$ref": format!("#/components/parameters/{name}")});
            object["parameters"] = self.parameters.iter().map(reference).collect();
        }
        if !self.request.is_empty() {
            object["requestBody"] = json!({
                "required": self.request_required,
                "content": contents(&self.request, schemas.requests()),
            });
        }
        object
    }

    fn responses(&self, schemas: &mut Schemas) -> Map<String, Value> {
        let mut responses = Map::new();
        for answer in &self.answers {
            let mut response = json!({"description": answer.about});
            if !answer.contents.is_empty() {
                response["content"] = contents(&answer.contents, schemas.answers()).into();
            }
            if !answer.headers.is_empty() {
                response["headers"] = header_references(&answer.headers);
            }
            responses.insert(answer.status.to_string(), response);
        }
        let codes = self.codes();
        for failed in codes.chunk_by(|one, next| one.status() == next.status()) {
            responses.insert(failed[0].status().as_u16().to_string(), problem(failed, self.caller));
        }
        responses
    }
}

fn contents(contents: &[Content], generator: &mut SchemaGenerator) -> Map<String, Value> {
    let described = contents.iter().map(|content| {
        let schema = (content.schema)(generator);
        (content.media_type.to_owned(), json!({"schema": schema, "example": content.example}))
    });
    described.collect()
}

fn header_references(names: &[&'static str]) -> Value {
    let reference = |name: &&str| ((*name).to_owned(), json!({"$ref": format!("#/components/headers/{name}")}));
    Value::Object(names.iter().map(reference).collect())
}

/// The response to failures of one status.
fn problem(codes: &[Code], caller: Caller) -> Value {
    let words: Vec<_> = codes.iter().map(|code| code.as_str()).collect();
    let meanings: Vec<_> = codes.iter().map(|code| format!("`{}`: {}", code.as_str(), code.meaning())).collect();
    let examples: Map<String, Value> = words
        .iter()
        .map(|word| ((*word).to_owned(), json!({"$ref": format!("#/components/examples/{word}")})))
        .collect();
    let status = codes[0].status().as_u16();
    let narrowed = json!({"properties": {"status": {"const": status}, "code": {"enum": words}}});
    let schema = json!({"allOf": [{"$ref": "#/components/schemas/Problem"}, narrowed]});
    let mut response = json!({
        "description": format!("{}.", meanings.join("; ")),
        "content": {PROBLEM: {"schema": schema, "examples": examples}},
    });
    let headers: &[&str] = match (status, caller) {
        (401, _) => &["WWW-Authenticate"],
        (429 | 503, _) => &["Retry-After"],
        (415, Caller::Server(_) | Caller::Anyone) => &["Accept"],
        (415, Caller::Client) => &["Accept-Post"],
        (415, Caller::Holder) => &["Accept-Patch"],
        _ => &[],
    };
    if !headers.is_empty() {
        response["headers"] = header_references(headers);
    }
    response
}
