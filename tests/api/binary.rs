//! The real binary: its command line, exit statuses, signals, systemd's notifications, and what it logs.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{KEY, PUBLISH_OFFER, SECRET, answered, header, join_token};

const CONFIG: &str = r#"
[keys]
mapservice = "the-map-service-secret-is-this-long"
[http]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[media]
udp_listen = "127.0.0.1:0"
tcp_listen = ""
[shard]
count = 1
"#;

/// A folder of this test's own, without what an earlier run left in it: rooms outlive their server.
fn folder(name: &str) -> PathBuf {
    static CLEARED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if CLEARED.lock().expect("no panic while held").insert(name.to_owned()) && folder.exists() {
        std::fs::remove_dir_all(&folder).expect("removed");
    }
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

pub fn write(name: &str, text: &str) -> PathBuf {
    let file = folder(name).join("config.toml");
    std::fs::write(&file, text).expect("written");
    file
}

pub fn stube(arguments: &[&str], config: &Path, environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stube"));
    command.args(arguments).arg("--config").arg(config).envs(environment.iter().copied());
    if let Some(folder) = config.parent().filter(|folder| !folder.join("Cargo.toml").exists()) {
        command.env("STATE_DIRECTORY", folder);
    }
    command.env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC").env_remove("WATCHDOG_PID");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub fn output(arguments: &[&str], config: &Path, environment: &[(&str, &str)]) -> Output {
    stube(arguments, config, environment).output().expect("the binary runs")
}

#[test]
fn configuration_errors_are_one_line_and_status_78() {
    let dev = include_str!("../../config.toml");
    type Case = (&'static str, &'static str, &'static [(&'static str, &'static str)], &'static str);
    let cases: [Case; 12] = [
        ("unknown-key", "[http]\nlisen = \"x\"", &[], "http.lisen"),
        ("unknown-section", "[htpp]\nlisten = \"x\"", &[], "htpp"),
        ("wrong-type", "[rooms]\nmax_participants = \"many\"", &[], "rooms.max_participants"),
        ("bad-address", "[http]\nlisten = \"localhost\"", &[], "http.listen"),
        ("short-secret", "[keys]\nmap = \"hunter2-hunter2\"", &[], "keys.map"),
        ("syntax", "[keys]\nmap = hunter2-hunter2", &[], "line 2"),
        ("log-level", "[log]\nlevel = \"info,=,x=y=z\"", &[], "log.level"),
        ("public-dev-key", dev, &[("STUBE__HTTP__LISTEN", "0.0.0.0:0")], "keys.devkey with http.listen"),
        ("public-dev-key-6", dev, &[("STUBE__HTTP__LISTEN", "[::]:0")], "keys.devkey with http.listen"),
        ("env-key", dev, &[("STUBE__HTTP__LISEN", "x")], "STUBE__HTTP__LISEN"),
        ("env-type", dev, &[("STUBE__SHARD__COUNT", "x")], "STUBE__SHARD__COUNT"),
        ("env-secret", dev, &[("STUBE__KEYS__map", "hunter2-hunter2")], "keys.map"),
    ];
    for (name, text, environment, named) in cases {
        let config = write(name, text);
        for arguments in [&["serve"][..], &["check-config"], &[], &["token", "--room", "r", "--identity", "i"]] {
            let output = output(arguments, &config, environment);
            let error = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(78), "{name} {arguments:?}: {error}");
            assert_eq!(error.lines().count(), 1, "{name}: {error}");
            assert!(error.starts_with("stube: ") && error.contains(named), "{name}: {error}");
            assert!(!error.contains("hunter2") && !error.contains("devsecret"), "{name}: {error}");
            assert!(output.stdout.is_empty(), "{name}");
        }
    }
    let missing = folder("missing").join("nowhere.toml");
    let output = output(&["serve"], &missing, &[]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{error}");
    assert!(error.lines().count() == 1 && error.contains("nowhere.toml"), "{error}");
}

#[test]
fn a_valid_configuration_is_called_so() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml");
    let output = output(&["check-config"], &shipped, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("valid"));
}

#[test]
fn an_address_in_use_is_status_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let output = output(&["serve"], &write("in-use", CONFIG), &[("STUBE__HTTP__LISTEN", &address)]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains(&address), "{error}");
}

#[test]
fn the_command_line_makes_tokens() {
    let config = write("token", CONFIG);
    let arguments = ["token", "--room", "hall", "--identity", "ada", "--ttl", "90", "--name", "Ada", "--grants"];
    let output = output(&[&arguments[..], &["canPublish=false,hidden=true"]].concat(), &config, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let token = String::from_utf8(output.stdout).expect("text");
    let key = jsonwebtoken::DecodingKey::from_secret(SECRET.as_bytes());
    let validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::HS256);
    let claims = jsonwebtoken::decode::<serde_json::Value>(token.trim(), &key, &validation).expect("valid").claims;
    assert_eq!((&claims["iss"], &claims["sub"]), (&json!(KEY), &json!("ada")));
    assert_eq!((&claims["video"]["room"], &claims["video"]["canPublish"]), (&json!("hall"), &json!(false)));
    for (wrong, status) in [
        (&["token", "--room", "r", "--identity", "i", "--key", "nobody"][..], 78),
        (&["token", "--room", "", "--identity", "i"], 1),
        (&["token", "--room", "r", "--identity", "i", "--grants", "canFly=true"], 2),
        (&["token", "--room", "r"], 2),
        (&["dance"], 2),
    ] {
        let output = self::output(wrong, &config, &[]);
        assert_eq!(output.status.code(), Some(status), "{wrong:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_ledger_that_is_not_there_is_neither_made_nor_called_empty() {
    let config = write("no-ledger", CONFIG);
    let folder = config.parent().expect("a folder");
    for arguments in [&["usage"][..], &["audit", "verify"]] {
        let output = output(arguments, &config, &[]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{arguments:?}: {error}");
        let where_it_should_be = format!("there is no ledger at {}", folder.display());
        assert!(error.contains(&where_it_should_be) && error.contains("STATE_DIRECTORY"), "{arguments:?}: {error}");
    }
    let files: Vec<_> = std::fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(files, ["config.toml"], "none was made");
    for (arguments, named) in [
        (["usage", "--from", "2026-11-22", "--to", "2026-11-22"], "--to: expected a day after --from"),
        (["usage", "--from", "2026-11-22", "--to", "yesterday"], "--to: expected a day, such as"),
    ] {
        let output = output(&arguments, &config, &[]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && error.contains(named), "{arguments:?}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_says_which_file_was_read() {
    let process = Process::start("reload-path", &[]);
    let admin = process.printed.lines().find_map(|line| line.trim().strip_prefix("admin")).expect("an admin listener");
    let url = format!("{}v1/node/reload", admin.trim().trim_end_matches(" and /metrics"));
    let answer = answered(reqwest::Client::new().post(url).json(&json!({})), 200, "reload").await;
    assert_eq!(answer["path"], json!(folder("reload-path").join("config.toml")));
    process.signal("TERM");
    assert_eq!(process.end().0, Some(0));
}

#[test]
fn packages_get_a_page_of_each_command_and_completions() {
    let folder = folder("generate");
    let named = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
    for pages in ["man", "completions"] {
        let target = folder.join(pages);
        let arguments = ["generate", pages, target.to_str().expect("UTF-8")];
        // It needs no configuration.
        let output = output(&arguments, Path::new("nowhere.toml"), &[]);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    }
    for page in [
        "stube",
        "stube-serve",
        "stube-check-config",
        "stube-token",
        "stube-usage",
        "stube-audit-verify",
        "stube-rooms-list",
        "stube-participants-mute",
        "stube-node-drain",
        "stube-doctor",
    ] {
        assert!(named(&format!("man/{page}.1")).contains(".TH"), "{page}");
    }
    for (shell, word) in [("stube.bash", "complete"), ("stube.fish", "complete"), ("_stube", "#compdef")] {
        assert!(named(&format!("completions/{shell}")).contains(word), "{shell}");
        assert!(named(&format!("completions/{shell}")).contains("unmute"), "{shell}");
        assert!(!named(&format!("completions/{shell}")).contains("generate"), "{shell}");
    }
}

/// Starts the binary as systemd does with a socket: as descriptor 3, and with its name in the environment.
fn start_with_socket(name: &str, listener: std::net::TcpListener, http: &str, fdname: &str) -> Child {
    let server = stube(&["serve"], &write(name, CONFIG), &[]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec 3<&0 </dev/null; LISTEN_PID=$$ exec \"$@\"", "sh"]);
    shell.arg(server.get_program()).args(server.get_args());
    for (variable, value) in server.get_envs() {
        if let Some(value) = value {
            shell.env(variable, value);
        }
    }
    shell.env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC").env_remove("WATCHDOG_PID");
    shell.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", fdname).env("STUBE__HTTP__LISTEN", http);
    shell.stdin(Stdio::from(std::os::fd::OwnedFd::from(listener))).stdout(Stdio::piped()).stderr(Stdio::piped());
    shell.spawn().expect("the binary runs")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_of_systemd_is_served() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    // Asked before there is a server: systemd's socket holds the connection until one comes.
    let early = tokio::spawn(reqwest::get(format!("http://{address}/")));
    let mut child = start_with_socket("socket", listener, &address, "http");
    let answer = early.await.expect("no panic").expect("an answer");
    assert_eq!(answer.status(), 200);
    assert!(Command::new("kill").arg(child.id().to_string()).status().expect("kill runs").success());
    assert_eq!(child.wait().expect("an end").code(), Some(0));
}

#[test]
fn a_socket_that_does_not_fit_is_refused() {
    for (name, http, fdname, line) in [
        ("elsewhere", "127.0.0.1:9", "http", "http.listen: 127.0.0.1:9 is not where stube-http.socket listens: "),
        ("nameless", "", "unknown", "stube-http.socket: expected one socket, with FileDescriptorName=http"),
    ] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let http = if http.is_empty() { &address } else { http };
        let output = start_with_socket(name, listener, http, fdname).wait_with_output().expect("an end");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{error}");
        assert!(error.starts_with(&format!("stube: {line}")), "{error}");
    }
}

/// A running binary.
pub struct Process {
    child: Child,
    /// The base URL that it printed.
    pub base: String,
    printed: String,
}

impl Process {
    pub fn start(name: &str, environment: &[(&str, &str)]) -> Self {
        let mut child = stube(&[], &write(name, CONFIG), environment).spawn().expect("the binary runs");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut printed = String::new();
        while !printed.contains("media") {
            let line = lines.next().expect("it says where to look").expect("text");
            printed.push_str(&line);
            printed.push('\n');
        }
        let page = printed.lines().find_map(|line| line.trim().strip_prefix("page")).expect("a page");
        Self { child, base: page.trim().trim_end_matches('/').to_owned(), printed }
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().expect("kill runs").success());
    }

    /// Waits for the end: exit status, how long it took, and everything logged.
    pub fn end(mut self) -> (Option<i32>, Duration, String) {
        let since = Instant::now();
        let status = self.child.wait().expect("an end");
        let took = since.elapsed();
        let mut log = String::new();
        self.child.stderr.take().expect("piped").read_to_string(&mut log).expect("text");
        (status.code(), took, log)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_end_calls_and_the_process_within_five_seconds() {
    for signal in ["TERM", "INT"] {
        let process = Process::start(&format!("signal-{signal}"), &[]);
        assert!(process.printed.contains("/metrics"), "{}", process.printed);
        let http = reqwest::Client::new();
        let rooms = format!("{}/v1/rooms", process.base);
        let create = http.post(&rooms).basic_auth(KEY, Some(SECRET)).json(&json!({"name": "hall"}));
        answered(create, 201, "a room").await;
        let join = http.post(format!("{}/v1/sessions", process.base)).bearer_auth(join_token("hall", "ada"));
        let join = join.header("content-type", "application/sdp").body(PUBLISH_OFFER).send().await.expect("an answer");
        assert_eq!(join.status(), 201);
        process.signal(signal);
        let (status, took, log) = tokio::task::spawn_blocking(|| process.end()).await.expect("ended");
        assert_eq!(status, Some(0), "{log}");
        assert!(took < Duration::from_secs(5), "{took:?}");
        assert!(log.contains("stopping") && log.contains("stopped"), "{log}");
    }
}

#[test]
fn systemd_hears_of_ready_watchdog_and_stopping() {
    let path = folder("notify").join("socket");
    let _ = std::fs::remove_file(&path);
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let heard = || {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).expect("a notification");
        String::from_utf8_lossy(&buffer[..length]).trim().to_owned()
    };
    let environment = [("NOTIFY_SOCKET", path.to_str().expect("UTF-8")), ("WATCHDOG_USEC", "400000")];
    // `stube()` removes these first, and then cannot set them: so they are set on the command.
    let mut command = stube(&[], &write("notify", CONFIG), &[]);
    let mut child = command.envs(environment).spawn().expect("the binary runs");
    assert_eq!(heard(), "READY=1");
    for _ in 0..3 {
        assert_eq!(heard(), "WATCHDOG=1");
    }
    assert!(Command::new("kill").arg(child.id().to_string()).status().expect("kill runs").success());
    let stopping = std::iter::repeat_with(heard).find(|state| state != "WATCHDOG=1");
    assert_eq!(stopping.as_deref(), Some("STOPPING=1"));
    assert_eq!(child.wait().expect("an end").code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_personal_is_logged() {
    for format in ["text", "json"] {
        let process = Process::start(&format!("log-{format}"), &[("STUBE__LOG__FORMAT", format)]);
        let http = reqwest::Client::new();
        let url = |path: &str| format!("{}{path}", process.base);
        let create = http.post(url("/v1/rooms")).basic_auth(KEY, Some(SECRET));
        answered(create.json(&json!({"name": "canary-room", "metadata": "canary-metadata"})), 201, "a room").await;
        let token = join_token("canary-room", "canary-identity");
        let offer = |token: &str, body: String| {
            let request = http.post(url("/v1/sessions")).bearer_auth(token);
            request.header("content-type", "application/sdp").body(body).send()
        };
        let joined = offer(&token, PUBLISH_OFFER.to_owned()).await.expect("an answer");
        let session = url(&header(&joined, "location"));
        let bad = PUBLISH_OFFER.replace("a=ice-pwd", "a=canary-line");
        for response in [
            offer(&token, bad).await,
            offer("canary-token", String::new()).await,
            http.get(url("/v1/rooms/canary-elsewhere")).basic_auth("canary-key", Some("canary-secret")).send().await,
            http.post(url("/v1/rooms")).basic_auth(KEY, Some(SECRET)).json(&json!({"canary-field": 1})).send().await,
            http.patch(&session).header("content-type", "application/sdp").body("canary-sdp").send().await,
            http.delete(&session).send().await,
        ] {
            assert!(response.expect("an answer").status().as_u16() < 500);
        }
        process.signal("TERM");
        let (status, _, log) = tokio::task::spawn_blocking(|| process.end()).await.expect("ended");
        assert_eq!(status, Some(0));
        let private = ["canary", "127.0.0.1", "cm9c", token.as_str(), "mapservice", "m=video"];
        for text in private {
            assert!(!log.contains(text), "{text} in {log}");
        }
        assert!(log.contains("started"), "{log}");
        if format == "json" {
            assert!(log.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{log}");
        }
    }
}
