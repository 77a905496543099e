//! `stube rooms`, `stube participants`, `stube node`: the real binary against a live server.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::client::{KEY, OTHER_KEY, OTHER_SECRET, SECRET, Server, answered};

/// Runs the binary without a configuration: all it needs is on its command line and in its environment.
fn ask(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stube"));
    command.args(arguments).arg("--config").arg(Path::new("nowhere.toml")).envs(environment.iter().copied());
    for variable in ["STUBE_URL", "STUBE_ADMIN_URL", "STUBE_SECRET", "STUBE_CONFIG"] {
        if environment.iter().all(|(name, _)| *name != variable) {
            command.env_remove(variable);
        }
    }
    command.stdin(Stdio::null()).output().expect("the binary runs")
}

/// As the map service; what it prints, or status and error.
async fn said(server: &Server, arguments: &str) -> Result<String, (i32, String)> {
    let arguments: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
    let (url, admin) = (server.url("/"), server.admin_url("/"));
    let run = move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let public = arguments[0] != "node";
        let key: &[&str] = if public { &["--key", KEY] } else { &[] };
        let environment = [("STUBE_URL", &*url), ("STUBE_ADMIN_URL", &*admin), ("STUBE_SECRET", SECRET)];
        ask(&[&arguments[..], key].concat(), &environment)
    };
    let output = tokio::task::spawn_blocking(run).await.expect("ran");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.code() {
        Some(0) => Ok(String::from_utf8(output.stdout).expect("text")),
        status => Err((status.expect("a status"), error)),
    }
}

async fn answer(server: &Server, arguments: &str) -> Value {
    let text = said(server, &format!("{arguments} --json")).await.expect("success");
    serde_json::from_str(&text).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn rooms_are_made_listed_shown_and_ended() {
    let server = Server::start().await;
    assert_eq!(said(&server, "rooms list").await.as_deref(), Ok("no rooms\n"));
    let made = said(&server, "rooms create a/b%20c --max-participants 7 --max-duration 90").await.expect("made");
    assert!(made.contains("a/b%20c") && made.contains("0 of 7") && made.contains("1 min 30 s"), "{made}");
    let listed = said(&server, "rooms list").await.expect("listed");
    assert!(listed.starts_with("room     participants") && listed.lines().count() == 2, "{listed}");
    let shown = answer(&server, "rooms show a/b%20c").await;
    assert_eq!((&shown["name"], &shown["max_participants"]), (&json!("a/b%20c"), &json!(7)));
    // Again with other settings: the server says what is wrong, in its own words.
    let (status, error) = said(&server, "rooms create a/b%20c --max-participants 8").await.expect_err("refused");
    assert!(status == 1 && error.contains("(room_exists)") && error.contains("PATCH"), "{status} {error}");
    let (status, error) = said(&server, "rooms create x --max-participants 0").await.expect_err("refused");
    assert!(status == 1 && error.contains("/max_participants: expected 1 to"), "{status} {error}");
    assert_eq!(said(&server, "rooms delete a/b%20c").await.as_deref(), Ok("a/b%20c has ended\n"));
    let (status, error) = said(&server, "rooms show a/b%20c").await.expect_err("gone");
    assert!(status == 1 && error.contains("(room_not_found)"), "{status} {error}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_a_list_are_joined() {
    let server = Server::start().await;
    for number in 0..1001 {
        server.room(&format!("room-{number:04}")).await;
    }
    let listed = answer(&server, "rooms list").await;
    let names: Vec<&str> =
        listed["rooms"].as_array().expect("rooms").iter().filter_map(|room| room["name"].as_str()).collect();
    assert_eq!((names.len(), names[0], names[1000]), (1001, "room-0000", "room-1000"));
    assert_eq!(listed["next_cursor"], Value::Null);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn participants_are_listed_muted_moved_and_removed() {
    let server = Server::start().await;
    server.room("hall").await;
    server.room("attic").await;
    assert_eq!(said(&server, "participants list hall").await.as_deref(), Ok("nobody is in the room\n"));
    server.join("hall", "ada").await;
    let listed = said(&server, "participants list hall").await.expect("listed");
    assert!(listed.contains("ada") && listed.contains("joining"), "{listed}");
    // Until media connects nobody is told of tracks; their ids are in the room's statistics. By source: admin.test.js.
    let stats = answered(server.call("GET", "/v1/rooms/hall/stats"), 200, "statistics").await;
    let track = stats["participants"][0]["published"][0]["track"].as_str().expect("a track");
    let muted = said(&server, &format!("participants mute hall ada {track}")).await;
    assert_eq!(muted, Ok(format!("{track} of ada in hall: muted\n")));
    let stats = answered(server.call("GET", "/v1/rooms/hall/stats"), 200, "statistics").await;
    assert_eq!(stats["participants"][0]["published"][0]["muted"], true);
    let refused = said(&server, &format!("participants unmute hall ada {track}")).await.expect_err("forbidden");
    assert!(refused.0 == 1 && refused.1.contains("(unmute_forbidden)"), "{refused:?}");
    let refused = said(&server, "participants mute hall ada").await.expect_err("has none");
    assert!(refused.0 == 1 && refused.1.contains("publishes no microphone, but nothing"), "{refused:?}");
    let moved = answer(&server, "participants move hall ada attic").await;
    assert_eq!(moved["identity"], "ada");
    assert!(said(&server, "participants list attic").await.is_ok_and(|listed| listed.contains("ada")));
    assert_eq!(said(&server, "participants remove attic ada").await.as_deref(), Ok("ada is removed from attic\n"));
    let (status, error) = said(&server, "participants remove attic ada").await.expect_err("gone");
    assert!(status == 1 && error.contains("(participant_not_found)"), "{status} {error}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_is_asked_reloaded_and_drained() {
    let server = Server::start().await;
    server.room("hall").await;
    server.join("hall", "ada").await;
    let status = said(&server, "node status").await.expect("a status");
    assert!(status.contains(", running, up for ") && status.contains("1 session\n"), "{status}");
    assert_eq!(answer(&server, "node status").await["state"], "running");
    assert_eq!(said(&server, "node reload").await.as_deref(), Ok("nothing has changed\n"));
    server.write_config(|base| format!("{base}[rooms]\nmax_participants = 0\n"));
    let (status, error) = said(&server, "node reload").await.expect_err("refused");
    assert!(status == 1 && error.contains("rooms.max_participants") && error.contains("(invalid_config)"), "{error}");
    let drained = said(&server, "node drain --deadline 60").await;
    assert_eq!(drained.as_deref(), Ok("draining: 1 session goes on; then the server stops\n"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_is_said_with_its_status() {
    let server = Server::start().await;
    let (url, admin) = (server.url(""), server.admin_url(""));
    // Bound and not listening: nobody answers there.
    let nobody = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    nobody.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bound");
    let nobody = format!("http://{}", nobody.local_addr().ok().and_then(|address| address.as_socket()).expect("bound"));
    let secret = [("STUBE_SECRET", SECRET)];
    let wrong = [("STUBE_SECRET", "not-the-secret-not-the-secret-hunter2")];
    type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], i32, &'a [&'a str]);
    let cases: [Case<'_>; 14] = [
        (&["rooms", "list", "--url", &nobody, "--key", KEY], &secret, 3, &["no server answers", "is it running?"]),
        (&["node", "status", "--admin-url", &nobody], &[], 3, &["the connection is refused", "systemctl status stube"]),
        (&["rooms", "list", "--url", &url, "--key", KEY], &wrong, 1, &["(invalid_credentials)", KEY, "STUBE_SECRET"]),
        (&["rooms", "list", "--url", "sfu.example.org", "--key", KEY], &secret, 2, &["--url: expected a URL"]),
        (&["rooms", "list", "--url", "http://192.0.2.7", "--key", KEY], &secret, 2, &["--url", "in clear", "https://"]),
        (&["rooms", "list", "--url", &url], &[], 78, &["nowhere.toml", "STUBE_SECRET"]),
        (&["rooms", "list"], &[], 78, &["nowhere.toml"]),
        (&["rooms", "delete", "..", "--url", &url, "--key", KEY], &secret, 2, &["nothing can be called"]),
        (&["rooms"], &[], 2, &["Usage"]),
        (&["load", "--url", &nobody, "--key", KEY], &secret, 3, &["no server answers", &nobody, "is it running?"]),
        (&["load", "--url", &url, "--key", KEY], &wrong, 1, &["invalid_credentials", KEY, "STUBE_SECRET"]),
        // Without a configuration as the shipped one says, whose server is this machine's.
        (&["load", "--url", "http://192.0.2.7"], &[], 2, &["--url leads to another server", "STUBE_SECRET"]),
        // The admin listener has no such thing.
        (&["rooms", "list", "--url", &admin, "--key", KEY], &secret, 1, &["no Stube", "404", "public listener?"]),
        (&["node", "status", "--admin-url", &url], &[], 1, &["(not_found)", "is it the admin listener?"]),
    ];
    for (arguments, environment, status, words) in cases {
        let output = tokio::task::block_in_place(|| ask(arguments, environment));
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {error}");
        assert!(words.iter().all(|word| error.contains(word)), "{arguments:?}: {error}");
        assert!(!error.contains("hunter2") && !error.contains(SECRET), "{arguments:?}: {error}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn server_and_key_come_from_the_configuration() {
    let server = Server::start().await;
    server.room("hall").await;
    let config =
        format!("[keys]\n{OTHER_KEY} = \"{OTHER_SECRET}\"\n{KEY} = \"{SECRET}\"\n[http]\nlisten = \"{}\"\n", {
            server.url("").trim_start_matches("http://").to_owned()
        });
    let config = crate::binary::write("remote", &config);
    let rooms = |arguments: &'static [&'static str]| {
        let output = tokio::task::block_in_place(|| crate::binary::output(arguments, &config, &[]));
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    // The first key, by name, is the map service's.
    assert!(rooms(&["rooms", "list"]).contains("hall"));
    assert_eq!(rooms(&["rooms", "list", "--key", OTHER_KEY]), "no rooms\n");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn load_goes_where_the_configuration_says_with_its_key() {
    let server = Server::start().await;
    let listen = server.url("").trim_start_matches("http://").to_owned();
    let text = format!("[keys]\nown = \"a-secret-that-the-server-does-not-know\"\n[http]\nlisten = \"{listen}\"\n");
    let config = crate::binary::write("load", &text);
    let refused = tokio::task::block_in_place(|| crate::binary::output(&["load"], &config, &[]));
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(error.contains("as the API key own, with the secret of the configuration: 401"), "{error}");
    server.stop().await;
}

#[test]
fn an_error_is_one_line_told_once() {
    let text = format!("[keys]\n{KEY} = \"{SECRET}\"\n[http]\nlisten = \"127.0.0.1:9\"\n");
    let config = crate::binary::write("remote-errors", &text);
    let unknown = crate::binary::output(&["rooms", "list", "--key", "nope"], &config, &[]);
    assert_eq!(String::from_utf8_lossy(&unknown.stderr), "stube: keys.nope: no such key\n");
    let missing = ask(&["rooms", "list"], &[]);
    assert_eq!(
        String::from_utf8_lossy(&missing.stderr),
        "stube: nowhere.toml: cannot read the configuration: No such file or directory (os error 2); name it by \
         --config, or the server by --url, with --key and STUBE_SECRET\n"
    );
    // Somebody else's server learns no secret of this configuration; it is not even looked for.
    for arguments in [&["rooms", "list", "--url", "https://other.invalid"][..], &["rooms", "list"]] {
        let environment: &[(&str, &str)] =
            if arguments.len() == 2 { &[("STUBE_URL", "https://other.invalid")] } else { &[] };
        let other = crate::binary::output(arguments, &config, environment);
        assert_eq!(other.status.code(), Some(2), "{}", String::from_utf8_lossy(&other.stderr));
        let line = "--url leads to another server than the configuration's: give --key, and its secret in STUBE_SECRET";
        assert_eq!(String::from_utf8_lossy(&other.stderr), format!("stube: {line}\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_with_a_certificate_in_files_is_believed_by_them() {
    // Its own root, which no system knows; its name leads nowhere.
    let key = rcgen::KeyPair::generate().expect("a key");
    let names = ["*.sfu.invalid".to_owned(), "127.0.0.1".to_owned()];
    let chain = rcgen::CertificateParams::new(names).expect("names").self_signed(&key).expect("a certificate").pem();
    let config = crate::binary::write("remote-tls", "");
    std::fs::write(config.with_file_name("chain.pem"), &chain).expect("written");
    std::fs::write(config.with_file_name("key.pem"), key.serialize_pem()).expect("written");
    let folder = config.parent().expect("a folder").display();
    let section = format!("[http.tls]\ncertificate = \"{folder}/chain.pem\"\nkey = \"{folder}/key.pem\"\n");
    let server = Server::trusted(&section, &[], Some(&chain)).await;
    server.room("hall").await;
    let text = format!("[keys]\n{KEY} = \"{SECRET}\"\n[http]\nlisten = \"{}\"\n{section}", server.address());
    std::fs::write(&config, text).expect("written");
    let listed = tokio::task::block_in_place(|| crate::binary::output(&["rooms", "list"], &config, &[]));
    let error = String::from_utf8_lossy(&listed.stderr);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("hall"), "{error}");
    server.stop().await;
}
