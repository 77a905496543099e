//! `stube doctor`: the real binary on machines with seeded faults.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::binary::{output, stube, write};

/// Ports that nobody had a moment ago.
fn free_ports() -> (u16, u16, u16) {
    let tcp = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let [http, admin] = tcp.each_ref().map(|socket| socket.local_addr().expect("bound").port());
    (http, admin, udp.local_addr().expect("bound").port())
}

/// A configuration on ports of its own, all of whose clients are on this machine.
fn configuration((http, admin, udp): (u16, u16, u16), sections: &str) -> String {
    format!(
        "[keys]\nmapservice = \"the-map-service-secret-is-this-long\"\n[http]\nlisten = \"127.0.0.1:{http}\"\n\
         [admin]\nlisten = \"127.0.0.1:{admin}\"\n[media]\nudp_listen = \"127.0.0.1:{udp}\"\ntcp_listen = \"\"\n\
         [shard]\ncount = 1\n{sections}"
    )
}

fn examined(config: &Path) -> (Option<i32>, Value) {
    let Output { status, stdout, stderr } = output(&["doctor", "--json"], config, &[]);
    let report = serde_json::from_slice(&stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&stderr)));
    (status.code(), report)
}

/// The findings of one check: verdict, what was seen, and whether there is advice.
fn findings(report: &Value, check: &str) -> Vec<(String, String, bool)> {
    let all = report["findings"].as_array().expect("findings").iter();
    let such = all.filter(|finding| finding["check"] == check);
    let text = |finding: &Value, member: &str| finding[member].as_str().expect("a text").to_owned();
    such.map(|finding| (text(finding, "verdict"), text(finding, "seen"), finding["advice"].is_string())).collect()
}

fn verdict(report: &Value, check: &str) -> String {
    let mut found = findings(report, check);
    assert_eq!(found.len(), 1, "{check}: {report:#}");
    found.remove(0).0
}

#[test]
fn a_sound_machine_has_no_failures() {
    let config = write("doctor-sound", &configuration(free_ports(), ""));
    let (status, report) = examined(&config);
    assert_eq!(status, Some(0), "{report:#}");
    for check in ["configuration", "server", "keys", "ports", "admin", "addresses", "ledger"] {
        assert_eq!(verdict(&report, check), "ok", "{report:#}");
    }
    // It looked, and made no ledger.
    assert!(!config.with_file_name("stube.db").exists() && !config.with_file_name("stube.db-trial").exists());
    assert!(report["not_checked"][0].as_str().is_some_and(|text| text.contains("another network")), "{report:#}");
    // What the kernel grants is not the test's to choose, but what it says of itself is to be reported.
    let granted = |name: &str| -> usize {
        let text = std::fs::read_to_string(format!("/proc/sys/net/core/{name}")).expect("readable");
        text.trim().parse().expect("a number")
    };
    let expected = if granted("rmem_max").min(granted("wmem_max")) < 512 * 1024 { "warn" } else { "ok" };
    assert_eq!(verdict(&report, "buffers"), expected, "{report:#}");
}

#[test]
fn seeded_faults_are_found_with_what_to_do() {
    let (http, admin, udp) = free_ports();
    let occupied = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], http))).expect("still free");
    let dead = free_ports().0;
    let sections = format!(
        "[ledger]\nurl = \"sqlite:///nowhere/at/all/stube.db\"\n[[webhook]]\nurl = \"http://127.0.0.1:{dead}/hooks?token=hunter2\"\n\
         secret = \"a webhook's secret: hunter2-hunter2\"\n"
    );
    let text =
        configuration((http, admin, udp), &sections).replace("[shard]", "advertise = [\"203.0.113.9\"]\n[shard]");
    let config = write("doctor-faults", &text);
    let (status, report) = examined(&config);
    assert_eq!((status, &report["verdict"]), (Some(1), &"fail".into()), "{report:#}");
    for (check, words) in [
        ("ports", "somebody else has it"),
        ("addresses", "203.0.113.9"),
        ("ledger", "create its directory"),
        ("webhooks", "it refuses connections"),
    ] {
        let found = findings(&report, check);
        let hit = found.iter().any(|(verdict, seen, advice)| verdict == "fail" && seen.contains(words) && *advice);
        assert!(hit, "{check}: {report:#}");
    }
    assert!(!report.to_string().contains("hunter2"), "{report:#}");
    // For people: the same, without colours where there is no terminal, and a line for whoever only looks at the error.
    let output = output(&["doctor"], &config, &[]);
    let (said, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("FAIL  webhooks") && said.contains("→ ") && !said.contains('\u{1b}'), "{said}");
    assert!(output.status.code() == Some(1) && error.contains("checks failed"), "{error}");
    drop(occupied);
}

#[test]
fn a_configuration_that_is_none_is_status_78() {
    let config = write("doctor-config", "[keys]\nmap = \"hunter2\"");
    let (status, report) = examined(&config);
    assert_eq!((status, verdict(&report, "configuration")), (Some(78), "fail".to_owned()), "{report:#}");
    assert!(!report.to_string().contains("hunter2"), "{report:#}");
}

#[test]
fn a_damaged_ledger_is_found() {
    let config = write("doctor-damaged", &configuration(free_ports(), ""));
    std::fs::write(config.with_file_name("stube.db"), "no database at all, but a text").expect("written");
    let (status, report) = examined(&config);
    assert_eq!((status, verdict(&report, "ledger")), (Some(1), "fail".to_owned()), "{report:#}");
    assert!(report.to_string().contains("damaged"), "{report:#}");
}

#[test]
fn beside_a_server_that_runs_its_ports_are_its_own() {
    let ports = free_ports();
    let config = write("doctor-running", &configuration(ports, ""));
    // A shell that allows few files, which the start warns of.
    let server = stube(&[], &config, &[]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n 600; exec \"$@\"", "sh"]).arg(server.get_program()).args(server.get_args());
    for (variable, value) in server.get_envs() {
        match value {
            Some(value) => shell.env(variable, value),
            None => shell.env_remove(variable),
        };
    }
    let log = config.with_file_name("log");
    let file = std::fs::File::create(&log).expect("a log");
    let mut child = shell.stdout(std::process::Stdio::null()).stderr(file).spawn().expect("the binary runs");
    let started = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        std::fs::read_to_string(&log).is_ok_and(|log| log.contains("each connection is a file"))
    });
    let (status, report) = examined(&config);
    // What is asked for over HTTP: the server stands for its own public name, and for a receiver of webhooks.
    let here = format!("http://127.0.0.1:{}", ports.0);
    let webhook = format!("[[webhook]]\nurl = \"{here}/\"\nsecret = \"a webhook's secret of enough bytes\"\n");
    let text = configuration(ports, &webhook).replace("[admin]", &format!("public_url = \"{here}\"\n[admin]"));
    let (_, named) = examined(&write("doctor-named", &text));
    let pid = child.id().to_string();
    assert!(Command::new("kill").arg(pid).status().expect("kill runs").success());
    assert_eq!(child.wait().expect("an end").code(), Some(0));
    let log = std::fs::read_to_string(&log).expect("a log");
    assert!(started && !log.contains("127.0.0.1"), "{log}");
    assert_eq!(status, Some(0), "{report:#}");
    assert_eq!((verdict(&named, "public_url"), verdict(&named, "webhooks")), ("ok".into(), "ok".into()), "{named:#}");
    assert!(findings(&named, "webhooks")[0].1.contains("200 to HEAD; no event was sent"), "{named:#}");
    // Its ledger is in the other folder, and "none yet" would be wrong.
    assert_eq!((verdict(&report, "ledger"), verdict(&named, "ledger")), ("ok".into(), "warn".into()), "{named:#}");
    let (ports, server) = (findings(&report, "ports"), findings(&report, "server"));
    assert!(ports.len() == 1 && ports[0].1.ends_with("held by the server that runs"), "{report:#}");
    assert!(server[0].1.contains("runs, running"), "{report:#}");
    // The server's own limit, not the test's.
    assert!(findings(&report, "files")[0].1.contains("the server may open 600 files"), "{report:#}");
}

#[test]
fn names_that_a_certificate_is_ordered_for_are_looked_up() {
    let tls = "[http.tls]\ndomains = [\"localhost\", \"nowhere.invalid\"]\n";
    let (status, report) = examined(&write("doctor-names", &configuration(free_ports(), tls)));
    let found = findings(&report, "domains");
    assert_eq!((status, found.len()), (Some(1), 2), "{report:#}");
    assert!(found[0].0 == "ok" && found[0].1.starts_with("localhost leads to "), "{report:#}");
    assert!(found[1].0 == "fail" && found[1].1.starts_with("nowhere.invalid: ") && found[1].2, "{report:#}");
}
