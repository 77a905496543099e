//! A PostgreSQL of the tests' own, from Debian's package: in a directory of its own, gone when the tests are.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

/// Reads one word a line and answers it. Ends with its input, that is with the tests, however they end.
const KEEPER: &str = r#"
trap '' INT TERM
cd "$(mktemp -d /tmp/stube-postgres-XXXXXX)" || exit 1
start() {
    "$BIN/pg_ctl" -D data -l log -w -o "-h 127.0.0.1 -p $PORT -k '' -c fsync=$FSYNC -c max_connections=300" start
}
prepare() {
    "$BIN/initdb" -D data -U stube -A trust -E UTF8 --locale=C.UTF-8 -N && start
}
prepare >start.log 2>&1 </dev/null || { cat start.log log >&2; exit 1; }
echo ready
while read -r word; do
    case "$word" in
        stop) "$BIN/pg_ctl" -D data -m immediate -w stop ;;
        start) start ;;
    esac >>start.log 2>&1 </dev/null
    echo "$?"
done
"$BIN/pg_ctl" -D data -m immediate -w stop >/dev/null 2>&1
rm -rf "$PWD"
"#;

/// A running server.
pub struct Postgres {
    port: u16,
    keeper: Mutex<Keeper>,
}

struct Keeper {
    _process: Child,
    words: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Postgres {
    /// Starts one; `safe` as in production, or without waiting for the disk.
    pub fn start(safe: bool) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // PostgreSQL refuses to run as root.
        let mut command = if fs::metadata("/proc/self").unwrap().uid() == 0 {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "sh", "-c", KEEPER]);
            command
        } else {
            let mut command = Command::new("sh");
            command.args(["-c", KEEPER]);
            command
        };
        let mut process = command
            .env("BIN", binaries())
            .env("PORT", port.to_string())
            .env("FSYNC", if safe { "on" } else { "off" })
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("PostgreSQL could not be started");
        let words = process.stdin.take().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        let mut keeper = Keeper { _process: process, words, answers };
        assert_eq!(keeper.answer(), "ready", "PostgreSQL did not start");
        Self { port, keeper: Mutex::new(keeper) }
    }

    /// Where a database of this server is.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://stube@127.0.0.1:{}/{database}", self.port)
    }

    /// Stops it as a power cut would, or starts it again.
    pub fn tell(&self, word: &str) {
        let mut keeper = self.keeper.lock().unwrap();
        writeln!(keeper.words, "{word}").unwrap();
        assert_eq!(keeper.answer(), "0", "PostgreSQL did not {word}");
    }
}

impl Keeper {
    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }
}

fn binaries() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("install Debian's package postgresql");
    let mut found: Vec<PathBuf> = versions.map(|version| version.unwrap().path().join("bin")).collect();
    found.sort();
    found.pop().expect("install Debian's package postgresql")
}
