//! A server's HTTP API as seen from the command line: requests, pages, and what to say when it does not go well.

use std::error::Error as _;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Certificate, Client, Method, StatusCode, Url, redirect};
use serde::Deserialize;
use serde_json::Value;

use super::Access;
use crate::config::{Config, ConfigError};
use crate::table;
use crate::tls;

/// How long an answer may take. The server gives up its own work after 15 seconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// Entries of a page: as many as the server gives at once.
const PAGE: &str = "1000";

/// The variable with the secret of `--key`.
pub(super) const SECRET_VARIABLE: &str = "STUBE_SECRET";

/// The API's code for a path that it does not have.
const NO_SUCH_PATH: &str = "not_found";

/// `EX_CONFIG` of sysexits.h.
const EXIT_CONFIG: u8 = 78;
/// As clap ends for a command line that it cannot read.
const EXIT_USAGE: u8 = 2;
const EXIT_UNREACHABLE: u8 = 3;

/// Why a command did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{0}{hint}", hint = without_file(.0))]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Usage(String),
    #[error("no server answers at {at}: {why}; {advice}")]
    Unreachable { at: String, why: String, advice: &'static str },
    #[error("{detail} ({code}){more}")]
    Refused { code: String, detail: String, more: String },
    #[error("{0}")]
    Unexpected(String),
}

/// What to do without a configuration.
fn without_file(error: &ConfigError) -> &'static str {
    match error {
        ConfigError::Unreadable { .. } => "; name it by --config, or the server by --url, with --key and STUBE_SECRET",
        _ => "",
    }
}

impl Failure {
    /// What the process ends with.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Config(_) => EXIT_CONFIG,
            Self::Usage(_) => EXIT_USAGE,
            Self::Unreachable { .. } => EXIT_UNREACHABLE,
            Self::Refused { .. } | Self::Unexpected(_) => 1,
        }
    }
}

/// A problem, as RFC 9457 has it, of this server.
#[derive(Deserialize)]
struct Problem {
    code: String,
    detail: String,
    #[serde(default)]
    errors: Vec<FieldError>,
}

#[derive(Deserialize)]
struct FieldError {
    pointer: String,
    detail: String,
}

/// Who asks. It has no `Debug`, for it holds a secret.
pub(super) struct Credentials {
    pub key: String,
    pub secret: String,
    /// Where the secret is from.
    pub source: &'static str,
}

/// A server that can be asked.
pub struct Server {
    client: Client,
    base: Url,
    credentials: Option<Credentials>,
    /// What to do if it does not answer.
    advice: &'static str,
}

impl Server {
    /// The public listener, as an API key.
    pub fn public(access: &Access, config: Result<Config, ConfigError>) -> Result<Self, Failure> {
        let own = config.as_ref().ok();
        let (base, at, roots) = match (&access.url, own) {
            (Some(url), _) => (secured(base("--url", url)?)?, None, Vec::new()),
            (None, Some(config)) => {
                let (base, at) = own_public(config)?;
                (base, at, roots(config))
            }
            (None, None) => return Err(config.err().map_or_else(no_server, Failure::from)),
        };
        let credentials = Some(credentials(access, &base, config)?);
        let advice = "is it running? `stube node status` on its machine tells, or `systemctl status stube`";
        Ok(Self { client: client(&base, at, roots)?, base, credentials, advice })
    }

    /// The admin listener. It asks for no credentials: who reaches it may.
    pub fn admin(url: Option<&str>, config: Result<Config, ConfigError>) -> Result<Self, Failure> {
        let base = match url {
            Some(url) => base("--admin-url", url)?,
            None => local("--admin-url", config?.admin.listen)?,
        };
        let advice =
            "is it running? `systemctl status stube` tells; it answers where admin.listen says, or give --admin-url";
        Ok(Self { client: client(&base, None, Vec::new())?, base, credentials: None, advice })
    }

    /// Where it is, with a slash at the end.
    pub fn url(&self) -> &str {
        self.base.as_str()
    }

    /// What is at a path, whose parts may hold any character.
    pub async fn get(&self, path: &[&str]) -> Result<Value, Failure> {
        self.ask(Method::GET, path, &[], None).await
    }

    /// Asks for something to be done; null if there is nothing to say about it.
    pub async fn order(&self, method: Method, path: &[&str], body: Option<&Value>) -> Result<Value, Failure> {
        self.ask(method, path, &[], body).await
    }

    /// A whole list, with the pages of `member` joined, as if it had one.
    pub async fn list(&self, path: &[&str], member: &str) -> Result<Value, Failure> {
        let mut whole = self.ask(Method::GET, path, &[("limit", PAGE)], None).await?;
        while let Some(cursor) = whole["next_cursor"].as_str().map(str::to_owned) {
            let mut page = self.ask(Method::GET, path, &[("limit", PAGE), ("cursor", &cursor)], None).await?;
            whole["next_cursor"] = page["next_cursor"].take();
            let more = page[member].as_array_mut().map(std::mem::take).unwrap_or_default();
            match whole[member].as_array_mut() {
                Some(entries) => entries.extend(more),
                None => whole["next_cursor"] = Value::Null,
            }
        }
        Ok(whole)
    }

    async fn ask(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let url = address(&self.base, path, query)?;
        let mut request = self.client.request(method, url);
        if let Some(Credentials { key, secret, .. }) = &self.credentials {
            request = request.basic_auth(key, Some(secret));
        }
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
        }
        let response = request.send().await.map_err(|error| self.silence(&error))?;
        let status = response.status();
        let text = response.text().await.map_err(|error| self.silence(&error))?;
        if !status.is_success() {
            return Err(self.refusal(status, &text));
        }
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).map_err(|_| {
            Failure::Unexpected(format!("what answers at {} is no Stube: it sent no JSON with {status}", self.base))
        })
    }

    fn silence(&self, error: &reqwest::Error) -> Failure {
        let mut causes = std::iter::successors(error.source(), |&error| error.source());
        let io = causes.find_map(|cause| cause.downcast_ref::<io::Error>());
        let why = match io.map(io::Error::kind) {
            _ if error.is_timeout() => "no answer in time",
            Some(io::ErrorKind::ConnectionRefused) => "the connection is refused",
            // What rustls reports.
            Some(io::ErrorKind::InvalidData) => "TLS failed; look at the certificate and at the URL's scheme",
            _ if error.is_dns() => "the name cannot be resolved",
            _ if error.is_connect() => "no connection comes about",
            _ => "the connection broke",
        };
        Failure::Unreachable { at: self.base.to_string(), why: why.to_owned(), advice: self.advice }
    }

    /// What to look at where paths are missing: the two listeners have different ones.
    fn listener(&self) -> &'static str {
        if self.credentials.is_some() { "is it the public listener?" } else { "is it the admin listener?" }
    }

    fn refusal(&self, status: StatusCode, text: &str) -> Failure {
        let Ok(Problem { code, detail, errors }) = serde_json::from_str(text) else {
            return Failure::Unexpected(format!(
                "what answers at {} is no Stube, or something is before it: {status}; {}",
                self.base,
                self.listener()
            ));
        };
        let line =
            |error: &FieldError| format!("\n  {}: {}", table::plain(&error.pointer), table::plain(&error.detail));
        let mut more: String = errors.iter().map(line).collect();
        if let (StatusCode::UNAUTHORIZED, Some(Credentials { key, source, .. })) = (status, &self.credentials) {
            more.push_str(&format!("\n  asked as the API key {key}, with the secret of {source}"));
        }
        if code == NO_SUCH_PATH {
            more.push_str(&format!("\n  {}", self.listener()));
        }
        Failure::Refused { code: table::plain(&code), detail: table::plain(&detail), more }
    }
}

pub(super) fn no_server() -> Failure {
    Failure::Usage("which server? give --url".to_owned())
}

/// A client that goes where it is told and nowhere else: to `at` instead of where the host's name leads. It believes
/// `roots`, besides those of the system.
fn client(base: &Url, at: Option<SocketAddr>, roots: Vec<Certificate>) -> Result<Client, Failure> {
    let mut builder = Client::builder()
        .user_agent(concat!("stube/", env!("CARGO_PKG_VERSION")))
        .timeout(PATIENCE)
        .redirect(redirect::Policy::none());
    if let (Some(at), Some(host)) = (at, base.host_str()) {
        builder = builder.resolve(host, at).no_proxy();
    }
    // A server on this machine is asked directly; and without https nothing must be trusted, so that a system without
    // certificates will do.
    let builder = match base.scheme() {
        "https" => builder.tls_certs_merge(roots),
        _ => builder.no_proxy().tls_certs_only([]),
    };
    let failed =
        |_| Failure::Unexpected("https needs the system's CA certificates; install ca-certificates".to_owned());
    builder.build().map_err(failed)
}

/// A URL that was given. It may have a path, as behind a proxy.
pub(super) fn base(argument: &str, text: &str) -> Result<Url, Failure> {
    let wrong =
        || Failure::Usage(format!("{argument}: expected a URL such as http://127.0.0.1:7880, without a password"));
    let url = Url::parse(text).map_err(|_| wrong())?;
    let plain = url.username().is_empty() && url.password().is_none();
    match url.scheme() {
        "http" | "https" if plain && url.has_host() => Ok(url),
        _ => Err(wrong()),
    }
}

/// A URL to which a secret may go: nobody listens on the way.
fn secured(url: Url) -> Result<Url, Failure> {
    match url.scheme() == "https" || url.host_str().is_some_and(is_loopback) {
        true => Ok(url),
        false => Err(Failure::Usage(
            "--url: the API secret would go there in clear; expected https://, or http:// on this machine, such as the \
             end of `ssh -L 7880:127.0.0.1:7880`"
                .to_owned(),
        )),
    }
}

/// The address that a URL's host is, if it is no name.
pub(super) fn ip(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

pub(super) fn is_loopback(host: &str) -> bool {
    host == "localhost" || ip(host).is_some_and(|ip| ip.to_canonical().is_loopback())
}

/// The host of `http.public_url`, if that is set.
fn public_host(config: &Config) -> Option<String> {
    Url::parse(&config.http.public_url).ok()?.host_str().map(str::to_owned)
}

/// Whether a URL leads to the server of this configuration, as far as its host tells.
fn is_own(base: &Url, config: &Config) -> bool {
    let Some(host) = base.host_str() else { return false };
    let is_named =
        public_host(config).as_deref() == Some(host) || config.http.tls.domains.iter().any(|domain| domain == host);
    is_named || is_loopback(host) || ip(host) == Some(config.http.listen.ip())
}

/// What to believe the own listener by, besides the system: its certificate in a file, or the root of its ACME server.
/// Without such a file the system's have to do.
fn roots(config: &Config) -> Vec<Certificate> {
    let tls = &config.http.tls;
    let path = if tls.has_files() { &tls.certificate } else { &tls.acme_root };
    if !tls.is_on() || path.as_os_str().is_empty() {
        return Vec::new();
    }
    let pem = fs::read(config.path(path)).unwrap_or_default();
    Certificate::from_pem_bundle(&pem).unwrap_or_default()
}

/// A name that the certificate in files is for. One that stands for any (`*.example.org`) will do: nobody looks it up.
fn certified(config: &Config) -> Result<String, Failure> {
    const ADVICE: &str = "which name is the certificate for? set http.public_url, or give --url https://NAME";
    let names = tls::read(config)?.map(|certificate| certificate.names).unwrap_or_default();
    let name = names.first().map(|name| name.replacen('*', "stube", 1));
    name.ok_or_else(|| Failure::Usage(ADVICE.to_owned()))
}

/// The public listener of this machine, and where it is if its URL has the name that the certificate is for.
pub(super) fn own_public(config: &Config) -> Result<(Url, Option<SocketAddr>), Failure> {
    let http = &config.http;
    let plain = local("--url", http.listen)?;
    if !http.tls.is_on() {
        return Ok((plain, None));
    }
    let named = public_host(config).or_else(|| http.tls.domains.first().cloned());
    let name = named.map_or_else(|| certified(config), Ok)?;
    let at = reachable(http.listen);
    Ok((base("--url", &format!("https://{name}:{}", at.port()))?, Some(at)))
}

/// How this machine reaches a listener of its own.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// The URL of a listener of this machine.
fn local(argument: &str, listen: SocketAddr) -> Result<Url, Failure> {
    if listen.port() == 0 {
        return Err(Failure::Usage(format!("the configuration lets the system choose the port; give {argument}")));
    }
    base(argument, &format!("http://{}", reachable(listen)))
}

/// Who asks. The secret of the configuration is for its own server alone: `--url` may be anybody's.
pub(super) fn credentials(
    access: &Access,
    base: &Url,
    config: Result<Config, ConfigError>,
) -> Result<Credentials, Failure> {
    let given = std::env::var_os(SECRET_VARIABLE).and_then(|secret| secret.into_string().ok());
    if let (Some(key), Some(secret)) = (&access.key, &given) {
        return Ok(Credentials { key: key.clone(), secret: secret.clone(), source: SECRET_VARIABLE });
    }
    let config = config?;
    if access.url.is_some() && !is_own(base, &config) {
        let advice =
            "--url leads to another server than the configuration's: give --key, and its secret in STUBE_SECRET";
        return Err(Failure::Usage(advice.to_owned()));
    }
    let (key, secret) = config.key_or_first(access.key.as_deref())?;
    let configured = || String::from_utf8_lossy(secret.as_bytes()).into_owned();
    let source = if given.is_some() { SECRET_VARIABLE } else { "the configuration" };
    Ok(Credentials { key: key.to_owned(), secret: given.unwrap_or_else(configured), source })
}

/// The URL of a path below `base`.
fn address(base: &Url, path: &[&str], query: &[(&str, &str)]) -> Result<Url, Failure> {
    // These vanish from a URL, and another resource would be asked.
    if let Some(part) = path.iter().find(|part| matches!(**part, "" | "." | "..")) {
        return Err(Failure::Usage(format!("nothing can be called \"{part}\"")));
    }
    let mut url = base.clone();
    match url.path_segments_mut() {
        Ok(mut segments) => drop(segments.pop_if_empty().extend(path)),
        Err(()) => return Err(no_server()),
    }
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_hold_anything_but_what_a_url_swallows() {
        let base = base("--url", "https://sfu.example.org/stube").expect("a URL");
        let of =
            |path: &[&str]| address(&base, path, &[]).map(|url| url.to_string()).map_err(|error| error.to_string());
        for (name, encoded) in
            [("a/b", "a%2Fb"), ("50%", "50%25"), ("a?b#c", "a%3Fb%23c"), ("Küche 1", "K%C3%BCche%201")]
        {
            assert_eq!(of(&["v1", "rooms", name]), Ok(format!("https://sfu.example.org/stube/v1/rooms/{encoded}")));
        }
        for name in ["", ".", ".."] {
            assert!(of(&["v1", "rooms", name]).is_err(), "{name}");
        }
        let paged = address(&base, &["v1"], &[("cursor", "a&b")]).map(|url| url.to_string());
        assert_eq!(paged.ok().as_deref(), Some("https://sfu.example.org/stube/v1?cursor=a%26b"));
    }

    #[test]
    fn a_listener_is_asked_on_this_machine() {
        for (listen, url) in [
            ("127.0.0.1:7880", Some("http://127.0.0.1:7880/")),
            ("0.0.0.0:7880", Some("http://127.0.0.1:7880/")),
            ("[::]:80", Some("http://[::1]/")),
            ("192.0.2.7:7880", Some("http://192.0.2.7:7880/")),
            ("127.0.0.1:0", None),
        ] {
            let found = local("--url", listen.parse().expect(listen)).ok();
            assert_eq!(found.as_ref().map(Url::as_str), url, "{listen}");
        }
        let of = |text: &str| {
            let config = Config::parse(text, std::iter::empty()).unwrap_or_else(|error| panic!("{error}"));
            own_public(&config).ok().map(|(url, at)| (url.to_string(), at.map(|at| at.to_string())))
        };
        let at = |url: &str, at: &str| Some((url.to_owned(), Some(at.to_owned())));
        let tls = "[http]\nlisten = \"0.0.0.0:443\"\n";
        let files = "[http.tls]\ncertificate = \"a\"\nkey = \"b\"\n";
        let named = "public_url = \"https://sfu.example.org\"\n";
        assert_eq!(of(&format!("{tls}[http.tls]\ndomains = [\"a.org\"]")), at("https://a.org/", "127.0.0.1:443"));
        assert_eq!(of(&format!("{tls}{named}{files}")), at("https://sfu.example.org/", "127.0.0.1:443"));
        assert_eq!(of(&format!("{tls}{files}")), None);
        for wrong in ["", "127.0.0.1:7880", "ftp://a", "http://ada:secret@a", "http://"] {
            assert!(base("--url", wrong).is_err_and(|failure| failure.exit_status() == EXIT_USAGE), "{wrong}");
        }
    }

    #[test]
    fn a_secret_goes_to_its_own_server_and_not_in_clear() {
        for (url, is_secured) in [
            ("https://sfu.example.org", true),
            ("http://localhost:7880", true),
            ("http://127.1.2.3", true),
            ("http://[::1]:7880", true),
            ("http://[::ffff:127.0.0.1]", true),
            ("http://sfu.example.org", false),
            ("http://localhost.example.org", false),
            ("http://192.0.2.7:7880", false),
            ("http://[2001:db8::1]", false),
        ] {
            let secured = base("--url", url).and_then(secured);
            assert_eq!(
                secured.map_err(|failure| failure.exit_status()).err(),
                (!is_secured).then_some(EXIT_USAGE),
                "{url}"
            );
        }
        let text = "[keys]\nmap = \"a-secret-of-the-configuration-hunter2\"\n[http]\nlisten = \"192.0.2.7:443\"\n\
                    public_url = \"https://sfu.example.org\"\n[http.tls]\ndomains = [\"a.example.org\"]";
        let source = |url: &str| {
            let config = Config::parse(text, std::iter::empty()).unwrap_or_else(|error| panic!("{error}"));
            let access = Access { url: Some(url.to_owned()), key: Some("map".to_owned()), json: false };
            let base = base("--url", url).unwrap_or_else(|error| panic!("{error}"));
            credentials(&access, &base, Ok(config)).map(|found| found.key).map_err(|failure| failure.exit_status())
        };
        for own in ["sfu.example.org:8443", "a.example.org", "192.0.2.7", "127.0.0.1:7880"] {
            assert_eq!(source(&format!("https://{own}")).as_deref(), Ok("map"), "{own}");
        }
        for other in ["example.org", "b.example.org", "192.0.2.8", "sfu.example.org.evil.example"] {
            assert_eq!(source(&format!("https://{other}")), Err(EXIT_USAGE), "{other}");
        }
    }

    #[test]
    fn a_refusal_is_told_without_what_a_terminal_obeys() {
        let server = Server::admin(Some("http://127.0.0.1:1"), Ok(Config::default()));
        let server = server.unwrap_or_else(|error| panic!("{error}"));
        let hostile = "{\"code\": \"\\u001b[2J\", \"detail\": \"a\u{9b}1m\", \"errors\": [{\"pointer\": \"/\u{202e}\", \
                       \"detail\": \"b\\nc\u{2066}\"}]}";
        let said = server.refusal(StatusCode::CONFLICT, hostile).to_string();
        assert_eq!(said, "a\u{fffd}1m (\u{fffd}[2J)\n  /\u{fffd}: b\u{fffd}c\u{fffd}");
    }
}
