//! The structure that the compiler does not check: rings, sizes, names, reasons, documents.
//!
//! Every rule is a function from the project's files to complaints, tried first on a bad snippet (so that it can fail)
//! and then on the project. Rules read code with comments and literals blanked out, so prose never trips them.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

#[path = "tidy/source.rs"]
mod source;

use source::{File, block_end, crate_paths, declared, is_word, line_of, words};

/// Where a file stops being readable in one sitting. Split by noun when it outgrows itself.
const FILE_LINES: usize = 500;
/// Where a function stops being one thought.
const FUNCTION_LINES: usize = 70;

// ---- rules -----------------------------------------------------------------------------------------------------------

/// `lib.rs` declares modules in dependency order; each imports only what stands above it.
fn imports_point_up(files: &[File]) -> Vec<String> {
    let Some(lib) = files.iter().find(|f| f.path == "src/lib.rs") else { return vec!["src/lib.rs is missing".into()] };
    let order = declared(&lib.code);
    let place = |name: &str| order.iter().position(|m| *m == name);
    let mut wrong = Vec::new();
    for file in files {
        let Some((module, mine)) = file.module().and_then(|m| Some((m, place(m)?))) else { continue };
        for (at, target) in crate_paths(&file.code) {
            if place(target).is_some_and(|theirs| theirs > mine) {
                let line = line_of(&file.code, at);
                wrong.push(format!(
                    "{}:{line}: `{module}` imports `{target}`, which src/lib.rs declares below it; move what both need up",
                    file.path
                ));
            }
        }
    }
    wrong
}

/// Ring 1 has no str0m, no runtime, no sockets, no clock, no entropy and no order that changes from run to run.
fn media_is_pure(files: &[File]) -> Vec<String> {
    const BANNED: [&str; 12] = [
        "str0m",
        "tokio",
        "mio",
        "socket2",
        "quinn_udp",
        "std::net",
        "std::fs",
        "Instant::now",
        "SystemTime",
        "rand",
        "HashMap",
        "HashSet",
    ];
    let media = files.iter().filter(|f| f.module() == Some("media"));
    let named = |line: &str| {
        let banned = BANNED.into_iter().find(|banned| words(line, banned).next().is_some())?;
        Some(format!("media/ must not name `{banned}`: ring 1 is pure; take it as an argument (maps: BTreeMap)"))
    };
    media.flat_map(|f| f.lines(false, named)).collect()
}

/// Only `rtc/` knows str0m and the crates behind it; `rtc/` itself does no I/O. `load/` is a client outside the server,
/// whose end of ICE and DTLS is str0m's too.
fn only_rtc_names_str0m(files: &[File]) -> Vec<String> {
    let named = |line: &str, banned: &[&'static str]| {
        banned.iter().find(|banned| words(line, banned).next().is_some()).copied()
    };
    let check = |file: &File| match file.module() {
        Some("rtc") => file.lines(false, |line| {
            let banned = named(line, &["tokio", "mio", "socket2", "quinn_udp", "UdpSocket", "TcpStream", "axum"])?;
            Some(format!("rtc/ must not name `{banned}`: datagrams in, datagrams out"))
        }),
        Some("load") => Vec::new(),
        _ => file.lines(false, |line| {
            let banned = named(line, &["str0m", "dimpl"])?;
            Some(format!("only rtc/ may name `{banned}`: it changes, and one ring is enough to change with it"))
        }),
    };
    files.iter().filter(|f| f.in_src()).flat_map(check).collect()
}

fn files_are_short(files: &[File]) -> Vec<String> {
    let long = files.iter().filter(|f| f.text.lines().count() > FILE_LINES);
    long.map(|f| format!("{}: {} lines, at most {FILE_LINES}: split it by noun", f.path, f.text.lines().count()))
        .collect()
}

fn functions_are_short(files: &[File]) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in files {
        for at in words(&file.code, "fn") {
            let name = file.code[at + 2..].trim_start().split(|c| !is_word(c)).next().unwrap_or_default();
            let Some(end) = block_end(&file.code, at).filter(|_| !name.is_empty()) else { continue };
            let (first, last) = (line_of(&file.code, at), line_of(&file.code, end));
            if last + 1 - first > FUNCTION_LINES {
                let lines = last + 1 - first;
                wrong.push(format!("{}:{first}: `{name}` has {lines} lines, at most {FUNCTION_LINES}", file.path));
            }
        }
    }
    wrong
}

fn files_say_what_they_are(files: &[File]) -> Vec<String> {
    let silent = files.iter().filter(|f| !f.text.starts_with("//! "));
    silent.map(|f| format!("{}:1: begin with `//! ` and what the file is for", f.path)).collect()
}

/// Names say a thing, not that somebody had no name for it.
fn names_are_nouns(files: &[File]) -> Vec<String> {
    const EMPTY: [&str; 9] = ["util", "utils", "helper", "helpers", "manager", "managers", "types", "common", "misc"];
    let mut wrong = Vec::new();
    for file in files.iter().filter(|f| f.in_src()) {
        let parts = file.path.trim_end_matches(".rs").split('/');
        wrong.extend(
            parts.filter(|p| EMPTY.contains(p)).map(|p| format!("{}: `{p}` names nothing; say the noun", file.path)),
        );
        wrong.extend(file.lines(false, |line| {
            let mut words =
                line.split(|c| !is_word(c)).skip_while(|w| !matches!(*w, "struct" | "enum" | "trait" | "mod"));
            let name = words.nth(1)?;
            let empty = EMPTY.contains(&name) || ["Manager", "Helper", "Utils"].iter().any(|end| name.ends_with(end));
            empty.then(|| format!("`{name}` names nothing; say the noun"))
        }));
    }
    wrong
}

/// Every panic on purpose outside tests has its reason in a comment directly above the statement.
fn panics_have_reasons(files: &[File]) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in files.iter().filter(|f| f.in_src()) {
        let (code, text): (Vec<&str>, Vec<&str>) = (file.code.lines().collect(), file.text.lines().collect());
        for (index, line) in code.iter().enumerate().filter(|(index, _)| !file.test_lines[*index]) {
            let panics = line.contains(".unwrap()") || line.contains(".expect(");
            if panics && !reason_above(&code, &text, index) {
                let at = format!("{}:{}", file.path, index + 1);
                wrong.push(format!(
                    "{at}: unwrap or expect without `// why it cannot fail` directly above the statement"
                ));
            }
        }
    }
    wrong
}

/// Whether a plain comment stands above a line, or above the statement that the line continues.
fn reason_above(code: &[&str], text: &[&str], mut index: usize) -> bool {
    while index > 0 {
        index -= 1;
        let above = text[index].trim();
        if above.starts_with("//") {
            return !above.starts_with("///") && !above.starts_with("//!");
        }
        let ends_a_statement = code[index].trim_end().ends_with([';', '{', '}', ',']);
        if ends_a_statement || code[index].trim().is_empty() {
            return false;
        }
    }
    false
}

fn nothing_is_left_undone(files: &[File]) -> Vec<String> {
    let unfinished = |line: &str| {
        let mark = ["todo!", "unimplemented!", "#[ignore"].into_iter().find(|mark| line.contains(mark))?;
        Some(format!("`{mark}`: finish it, or remove it and say so in docs/"))
    };
    files.iter().flat_map(|f| f.lines(true, unfinished)).collect()
}

/// `unsafe` lives in one test file, which seals the system's clock and entropy for the simulation.
fn unsafe_stays_sealed(files: &[File]) -> Vec<String> {
    let others = files.iter().filter(|f| f.path != "tests/sim/seal.rs");
    let named = |line: &str| words(line, "unsafe").next().map(|_| "`unsafe` outside tests/sim/seal.rs".to_owned());
    others.flat_map(|f| f.lines(true, named)).collect()
}

/// Both crates of the server raise the walls of `.clippy.toml`.
fn crates_raise_the_walls(files: &[File]) -> Vec<String> {
    let roots = files.iter().filter(|f| matches!(f.path.as_str(), "src/lib.rs" | "src/main.rs"));
    let open = roots.flat_map(|f| {
        let walls = ["#![forbid(unsafe_code)]", "clippy::disallowed_methods"].into_iter();
        walls.filter(|wall| !f.code.contains(wall)).map(|wall| format!("{}: must hold `{wall}`", f.path))
    });
    open.collect()
}

/// Every file under `src/` is compiled.
fn every_file_is_reachable(files: &[File]) -> Vec<String> {
    let mut reached = vec!["src/lib.rs".to_owned(), "src/main.rs".to_owned()];
    let mut next = 0;
    while next < reached.len() {
        let path = reached[next].clone();
        next += 1;
        let Some(file) = files.iter().find(|f| f.path == path) else { continue };
        let folder = match path.rsplit_once('/') {
            Some((folder, "lib.rs" | "main.rs" | "mod.rs")) => folder.to_owned(),
            _ => path.trim_end_matches(".rs").to_owned(),
        };
        for name in declared(&file.code) {
            reached.extend([format!("{folder}/{name}.rs"), format!("{folder}/{name}/mod.rs")]);
        }
    }
    let lost = files.iter().filter(|f| f.in_src() && !reached.contains(&f.path));
    lost.map(|f| format!("{}: no `mod` leads here from src/lib.rs or src/main.rs", f.path)).collect()
}

/// The metric names in a registry's source, which writes them in full.
fn metric_names(registry: &str) -> Vec<&str> {
    let named = literals(registry).map(|(_, literal)| literal);
    named
        .filter(|l| l.len() > 6 && l.starts_with("stube_") && l.chars().all(|c| is_word(c) && !c.is_uppercase()))
        .collect()
}

/// Every metric is explained, and nothing else is, unless it is marked as planned.
fn metrics_are_documented(registry: &File, operations: &str) -> Vec<String> {
    let names = metric_names(&registry.text);
    let unexplained = names.iter().filter(|name| words(operations, name).next().is_none());
    let mut wrong: Vec<String> = unexplained
        .map(|name| format!("docs/operations.md does not explain the metric `{name}` of {}", registry.path))
        .collect();
    for row in operations.lines().filter(|row| row.starts_with("| `stube_") && !row.contains("*planned*")) {
        let name = row.split('`').nth(1).unwrap_or_default();
        if !names.is_empty() && !names.contains(&name) {
            wrong.push(format!("docs/operations.md explains `{name}`, which {} does not have", registry.path));
        }
    }
    if names.is_empty() && words(&registry.code, "prometheus").next().is_some() {
        wrong.push(format!(
            "{}: write metric names in full (\"stube_…\"), so that one can search for them",
            registry.path
        ));
    }
    wrong
}

/// What stands between two quotation marks of one line, with what stands before it on that line.
fn literals(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().flat_map(|line| {
        let quotes = line.match_indices('"').map(|(at, _)| at);
        quotes.filter_map(|at| Some((&line[..at], line[at + 1..].split_once('"')?.0)))
    })
}

/// The codes of errors in HTTP answers and on the data channel: the literal after a status's number, or after a seat.
fn error_codes(file: &File) -> Vec<&str> {
    let leads = |before: &str| {
        let status = before.trim_end().rsplit(' ').next().is_some_and(|last| last.parse::<u16>().is_ok());
        status || ["self.error(seat, ", "code: "].iter().any(|end| before.ends_with(end))
    };
    let is_code = |literal: &str| literal.len() > 3 && literal.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    let codes = literals(&file.text).filter(|(before, literal)| leads(before) && is_code(literal));
    codes.map(|(_, literal)| literal).collect()
}

/// Every error code is explained.
fn error_codes_are_documented(files: &[File], protocol: &str) -> Vec<String> {
    let sources = files.iter().filter(|f| matches!(f.module(), Some("control" | "media" | "rtc")));
    let unexplained = sources.flat_map(|file| {
        let codes = error_codes(file).into_iter().filter(|code| !protocol.contains(&format!("| `{code}` |")));
        codes.map(|code| format!("docs/protocol.md has no row for the error code `{code}` of {}", file.path))
    });
    unexplained.collect()
}

/// Packages of a Cargo.lock with their versions.
fn locked(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split("[[package]]").filter_map(|package| {
        let value = |key: &str| package.lines().find_map(|line| line.strip_prefix(key)?.split('"').nth(1));
        Some((value("name = ")?, value("version = ")?))
    })
}

/// What is fuzzed is what is shipped: the fuzz crate, a workspace of its own, locks the same versions.
fn locks_agree(server: &str, fuzz: &str) -> Vec<String> {
    let known: Vec<_> = locked(server).collect();
    let differs = |(name, version): &(&str, &str)| {
        known.iter().any(|(other, _)| other == name) && !known.contains(&(*name, *version))
    };
    let fix = "cp Cargo.lock fuzz/Cargo.lock && cargo metadata --manifest-path fuzz/Cargo.toml >/dev/null";
    locked(fuzz).filter(differs).map(|(name, version)| format!("fuzz/Cargo.lock: {name} {version}; {fix}")).collect()
}

// ---- the project -----------------------------------------------------------------------------------------------------

fn collect(folder: &Path, into: &mut Vec<File>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.map(|entry| entry.expect("a readable entry").path()) {
        if path.is_dir() && !path.ends_with("node_modules") {
            collect(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).expect("Rust files are UTF-8");
            into.push(File::new(&path.to_string_lossy().replace('\\', "/"), &text));
        }
    }
}

/// The project's own Rust files; cargo runs tests in the package's root.
fn project() -> Vec<File> {
    let mut files = Vec::new();
    for folder in ["src", "tests", "benches", "fuzz"] {
        collect(Path::new(folder), &mut files);
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(files.iter().any(|f| f.path == "src/lib.rs"), "not run in the project's root");
    files
}

fn fine(complaints: &[String]) {
    let mut list = String::new();
    for complaint in complaints {
        let _ = writeln!(list, "  {complaint}");
    }
    assert!(complaints.is_empty(), "{} to tidy:\n{list}", complaints.len());
}

type Rule = fn(&[File]) -> Vec<String>;
/// Paths and texts.
type Snippets = &'static [(&'static str, &'static str)];

/// Every rule, with files it must complain about (once) and files it must not.
const RULES: &[(Rule, Snippets, Snippets)] = &[
    (
        imports_point_up,
        &[
            ("src/lib.rs", "pub mod media;\npub mod rtc;\n"),
            ("src/media/mod.rs", "use crate::{media::x, rtc::Engine};"),
        ],
        &[("src/lib.rs", "pub mod media;\npub mod rtc;\n"), ("src/rtc/mod.rs", "// crate::none\nuse crate::media::x;")],
    ),
    (
        media_is_pure,
        &[("src/media/room.rs", "use std::collections::HashMap;")],
        &[("src/media/room.rs", "/* tokio */ let operand = \"str0m\";\n#[cfg(test)]\nmod tests { use rand::Rng; }\n")],
    ),
    (
        only_rtc_names_str0m,
        &[("src/shard/mod.rs", "use str0m::Rtc;")],
        &[
            ("src/rtc/peer.rs", "use str0m::Rtc;"),
            ("src/load/link.rs", "use str0m::Rtc;"),
            ("tests/sim/main.rs", "use str0m::Rtc;"),
        ],
    ),
    (only_rtc_names_str0m, &[("src/rtc/peer.rs", "use std::net::{SocketAddr, UdpSocket};")], &[]),
    (files_say_what_they_are, &[("src/a.rs", "// Not a module comment.\n")], &[("src/a.rs", "//! A thing.\n")]),
    (names_are_nouns, &[("src/a.rs", "pub struct RoomManager;")], &[("src/a.rs", "pub struct Room;")]),
    (names_are_nouns, &[("src/control/types.rs", "")], &[]),
    (
        panics_have_reasons,
        &[("src/a.rs", "/// Doc.\nfn f() {\n    let a = b.c()\n        .unwrap();\n}\n")],
        &[(
            "src/a.rs",
            "fn f() {\n    // c is set above.\n    let a = b.c()\n        .unwrap();\n    d.unwrap_or(1);\n}\n\
             #[cfg(test)]\nmod tests {\n    fn g() { h.unwrap(); }\n}\n",
        )],
    ),
    (nothing_is_left_undone, &[("tests/a.rs", "#[ignore = \"slow\"]")], &[("tests/a.rs", "f(\"todo!\"); // todo!")]),
    (
        unsafe_stays_sealed,
        &[("src/a.rs", "fn f() { unsafe { g() } }")],
        &[("tests/sim/seal.rs", "unsafe {}"), ("src/lib.rs", "#![forbid(unsafe_code)]")],
    ),
    (
        crates_raise_the_walls,
        &[("src/main.rs", "#![forbid(unsafe_code)]")],
        &[("src/main.rs", "#![forbid(unsafe_code)]\n#![warn(clippy::disallowed_methods)]")],
    ),
    (
        every_file_is_reachable,
        &[("src/lib.rs", "mod a;"), ("src/a.rs", "mod b { }"), ("src/a/b.rs", "")],
        &[("src/lib.rs", "pub mod a;"), ("src/a/mod.rs", "mod b;"), ("src/a/b.rs", "")],
    ),
];

fn files(list: &[(&str, &str)]) -> Vec<File> {
    list.iter().map(|(path, text)| File::new(path, text)).collect()
}

#[test]
fn every_rule_can_fail() {
    for (index, (rule, bad, good)) in RULES.iter().enumerate() {
        assert_eq!(rule(&files(bad)).len(), 1, "rule {index}, bad: {:?}", rule(&files(bad)));
        let complaints = if good.is_empty() { vec![] } else { rule(&files(good)) };
        assert!(complaints.is_empty(), "rule {index}, good: {complaints:?}");
    }
    let long = format!("fn f() {{\n{}}}\nfn g();\n", "    h('{', '\\'', r#\"}\"\"#);\n".repeat(FILE_LINES));
    assert_eq!(files_are_short(&[File::new("src/a.rs", &long)]).len(), 1);
    assert_eq!(functions_are_short(&[File::new("src/a.rs", &long)]).len(), 1);
    let short = format!("fn f(x: [u8; 2]) {{\n{}}}\n", "    h();\n".repeat(FUNCTION_LINES - 2));
    assert!(functions_are_short(&[File::new("src/a.rs", &short)]).is_empty());
    let registry = File::new("src/metrics.rs", "use prometheus::X; f(\"stube_rooms\");");
    assert_eq!(metrics_are_documented(&registry, "`stube_rooms_total`").len(), 1);
    assert!(metrics_are_documented(&registry, "| `stube_rooms` |\n| `stube_x` | *planned*").is_empty());
    assert_eq!(metrics_are_documented(&registry, "| `stube_rooms` |\n| `stube_x` |").len(), 1);
    assert_eq!(metrics_are_documented(&File::new("src/metrics.rs", "use prometheus::X;"), "").len(), 1);
    let problems = "    ACode 404 \"a_code\" \"what it means\"\nself.error(seat, \"b_code\", \"not one\", \"mute\");";
    let problems = [File::new("src/control/code.rs", problems)];
    assert_eq!(error_codes_are_documented(&problems, "| `a_code` | `b_code`").len(), 1);
    assert!(error_codes_are_documented(&problems, "| `a_code` | 404 |\n| `b_code` | `mute` |").is_empty());
}

macro_rules! on_the_project {
    ($($name:ident)*) => { mod project {$(
        #[test]
        fn $name() {
            super::fine(&super::$name(&super::project()));
        }
    )*} };
}

#[test]
fn the_fuzzed_versions_are_the_shipped_ones() {
    let lock = |versions: &[&str]| -> String {
        versions.iter().map(|version| format!("[[package]]\nname = \"a\"\nversion = \"{version}\"\n\n")).collect()
    };
    assert_eq!(locks_agree(&lock(&["1.0.0", "2.0.0"]), &lock(&["2.0.1"])).len(), 1);
    assert!(locks_agree(&lock(&["1.0.0", "2.0.0"]), &lock(&["2.0.0"])).is_empty());
    let read = |path: &str| fs::read_to_string(path).expect("a committed lock file");
    fine(&locks_agree(&read("Cargo.lock"), &read("fuzz/Cargo.lock")));
}

on_the_project! {
    imports_point_up media_is_pure only_rtc_names_str0m files_are_short functions_are_short files_say_what_they_are
    names_are_nouns panics_have_reasons nothing_is_left_undone unsafe_stays_sealed
    crates_raise_the_walls every_file_is_reachable
}

#[test]
fn documents_exist_and_explain_metrics_and_codes() {
    let pages = ["README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE", "docs/protocol.md"];
    for page in pages.iter().chain(&["docs/operations.md", "docs/architecture.md", "docs/decisions.md"]) {
        let text = fs::read_to_string(page).unwrap_or_default();
        assert!(text.lines().count() > 10, "{page} is missing or says nothing");
    }
    let operations = fs::read_to_string("docs/operations.md").expect("checked above");
    let files = project();
    let is_registry = |file: &&File| file.path == "src/metrics.rs" || file.path.starts_with("src/metrics/");
    let texts: Vec<&str> =
        files.iter().filter(is_registry).filter(|f| !f.path.ends_with("tests.rs")).map(|f| f.text.as_str()).collect();
    assert!(!texts.is_empty(), "src/metrics.rs holds the registry");
    fine(&metrics_are_documented(&File::new("src/metrics", &texts.join("\n")), &operations));
    let protocol = fs::read_to_string("docs/protocol.md").expect("checked above");
    fine(&error_codes_are_documented(&files, &protocol));
}
