//! A server in this process, a client for it, tokens made without the server's own code, and problems to expect.

use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use stube::config::Config;
use stube::control::app::Source;
use stube::run::{self, Process, Running};
use tempfile::TempDir;

use crate::described;

/// Two tenants.
pub const KEY: &str = "mapservice";
pub const SECRET: &str = "the-map-service-secret-is-this-long";
pub const OTHER_KEY: &str = "neighbour";
pub const OTHER_SECRET: &str = "the-neighbours-secret-is-also-long";

/// A Chromium that sends video, and one that only receives.
pub const PUBLISH_OFFER: &str = include_str!("../offers/chromium_plain_vp8.sdp");
pub const PLAY_OFFER: &str = include_str!("../offers/whip_whep_js_play.sdp");

const CONFIG: &str = r#"
[keys]
mapservice = "the-map-service-secret-is-this-long"
neighbour = "the-neighbours-secret-is-also-long"
[http]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[media]
udp_listen = "127.0.0.1:0"
tcp_listen = ""
[shard]
count = 2
"#;

/// A server on ports of its own.
pub struct Server {
    running: Running,
    http: reqwest::Client,
    scheme: &'static str,
    /// The file that a reload reads.
    file: Arc<Mutex<String>>,
    /// Where the ledger is; gone with the server.
    _folder: TempDir,
}

impl Server {
    /// With the tests' configuration.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// With some keys changed, written as environment variables.
    pub async fn with(changes: &[(&str, &str)]) -> Self {
        Self::configured("", changes).await
    }

    /// With more sections, and some keys changed.
    pub async fn configured(sections: &str, changes: &[(&str, &str)]) -> Self {
        Self::trusted(sections, changes, None).await
    }

    /// As before, and its client believes this root, in PEM.
    pub async fn trusted(sections: &str, changes: &[(&str, &str)], root: Option<&str>) -> Self {
        let changes = changes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let folder = tempfile::tempdir().expect("a folder");
        let ledger = format!("sqlite://{}", folder.path().join("stube.db").display());
        let changes: Vec<_> = [("STUBE__LEDGER__URL".to_owned(), ledger)].into_iter().chain(changes).collect();
        let file = Arc::new(Mutex::new(format!("{CONFIG}{sections}")));
        let source: Source = {
            let (file, changes) = (Arc::clone(&file), changes.clone());
            Box::new(move || Config::parse(&file.lock().expect("a text"), changes.clone().into_iter()))
        };
        let config = source().expect("a valid configuration");
        let process = Process { source, source_path: None, log_to: Box::new(|_| {}) };
        Self {
            _folder: folder,
            scheme: config.http.tls.scheme(),
            running: run::start(config, process).await.expect("a started server"),
            http: root.map_or_else(reqwest::Client::new, believing),
            file,
        }
    }

    /// Writes the file that a reload reads: the tests' configuration, edited.
    pub fn write_config(&self, edit: impl Fn(&str) -> String) {
        *self.file.lock().expect("a text") = edit(CONFIG);
    }

    /// A request to the admin listener that changes something.
    pub fn order(&self, path: &str) -> RequestBuilder {
        self.http.post(self.admin_url(path))
    }

    /// Ends when a server that drains has nothing left to wait for.
    pub async fn drained(&self) {
        self.running.drained().await;
    }

    /// The absolute URL of a path of the public listener.
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.running.http_addr)
    }

    /// Where its public listener is.
    pub fn address(&self) -> std::net::SocketAddr {
        self.running.http_addr
    }

    /// The absolute URL of a path of the admin listener.
    pub fn admin_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.running.admin_addr)
    }

    /// A request without credentials.
    pub fn request(&self, method: &str, path: &str) -> RequestBuilder {
        self.http.request(Method::from_bytes(method.as_bytes()).expect("a method"), self.url(path))
    }

    /// A request of the map service, by HTTP Basic.
    pub fn call(&self, method: &str, path: &str) -> RequestBuilder {
        self.request(method, path).basic_auth(KEY, Some(SECRET))
    }

    /// A question to the admin listener.
    pub fn ask_admin(&self, path: &str) -> RequestBuilder {
        self.http.get(self.admin_url(path))
    }

    /// The answer of the admin listener.
    pub async fn admin(&self, path: &str) -> Response {
        self.ask_admin(path).send().await.expect("an answer")
    }

    /// Allocates a room of this name.
    pub async fn room(&self, name: &str) -> Value {
        let response = self.call("POST", "/v1/rooms").json(&json!({"name": name})).send().await.expect("an answer");
        assert_eq!(response.status(), 201, "room {name}");
        response.json().await.expect("a room")
    }

    /// Joins; the answer must be a session.
    pub async fn join(&self, room: &str, identity: &str) -> Session {
        let token = join_token(room, identity);
        let response = self.offer("/v1/sessions", &token, PUBLISH_OFFER).send().await.expect("an answer");
        assert_eq!(response.status(), 201, "{}", response.text().await.unwrap_or_default());
        Session { url: header(&response, "location"), etag: header(&response, "etag"), token }
    }

    /// A POST of an offer.
    pub fn offer(&self, path: &str, token: &str, offer: &str) -> RequestBuilder {
        let request = self.request("POST", path).bearer_auth(token).header("content-type", "application/sdp");
        request.body(offer.to_owned())
    }

    /// Ends the server.
    pub async fn stop(self) {
        self.running.shutdown().await;
    }
}

/// A client that believes this root alone, in PEM.
pub fn believing(root: &str) -> reqwest::Client {
    let root = reqwest::Certificate::from_pem(root.as_bytes()).expect("a root");
    reqwest::Client::builder().tls_certs_only([root]).build().expect("a client")
}

/// A session that was joined.
pub struct Session {
    pub url: String,
    pub etag: String,
    pub token: String,
}

/// A header of a response; empty if it has none.
pub fn header(response: &Response, name: &str) -> String {
    response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

/// Seconds since 1970.
pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as i64
}

/// A token of these claims, `iss` and `exp` added unless they are there.
pub fn sign(secret: &str, mut claims: Value) -> String {
    let object = claims.as_object_mut().expect("an object");
    object.entry("iss").or_insert(json!(KEY));
    object.entry("exp").or_insert(json!(now() + 60));
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).expect("a token")
}

/// A token that joins.
pub fn join_token(room: &str, identity: &str) -> String {
    sign(SECRET, json!({"sub": identity, "video": {"room": room, "roomJoin": true}}))
}

/// Sends; what was asked, and the answer.
async fn sent(request: RequestBuilder, what: &str) -> (String, String, Response) {
    let (client, request) = request.build_split();
    let request = request.unwrap_or_else(|error| panic!("{what}: {error}"));
    let (method, path) = (request.method().to_string(), request.url().path().to_owned());
    let response = client.execute(request).await.unwrap_or_else(|error| panic!("{what}: {error}"));
    (method, path, response)
}

/// Sends, and expects a problem of this status and code; returns its body.
pub async fn refused(request: RequestBuilder, status: u16, code: &str, what: &str) -> Value {
    let (method, path, response) = sent(request, what).await;
    let (actual, media_type) = (response.status().as_u16(), header(&response, "content-type"));
    let retry_after = header(&response, "retry-after");
    let text = response.text().await.unwrap_or_default();
    described::check(&method, &path, actual, &media_type, &text);
    assert_eq!(actual, status, "{what}: {text}");
    assert_eq!(media_type, "application/problem+json", "{what}");
    let problem: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{what}: {text}"));
    assert_eq!(problem["code"], code, "{what}: {text}");
    assert_eq!(problem["status"], status, "{what}");
    assert_eq!(problem["type"], format!("urn:stube:problem:{code}"), "{what}");
    for member in ["title", "detail", "instance"] {
        assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{what}: {member}");
    }
    assert_eq!(!retry_after.is_empty(), matches!(status, 429 | 503), "{what}");
    problem
}

/// Sends, and expects success of this status with JSON.
pub async fn answered(request: RequestBuilder, status: u16, what: &str) -> Value {
    let (method, path, response) = sent(request, what).await;
    let (actual, media_type) = (response.status().as_u16(), header(&response, "content-type"));
    let text = response.text().await.unwrap_or_default();
    assert_eq!(actual, status, "{what}: {text}");
    described::check(&method, &path, actual, &media_type, &text);
    serde_json::from_str(&text).unwrap_or(Value::Null)
}
