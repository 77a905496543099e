//! SDP answers to the offers of real clients, compared with golden files.
//!
//! What is random in an answer (credentials, fingerprint, SSRCs, ids) is masked. `UPDATE_GOLDEN=1 cargo test --test
//! answers` writes the files anew; look at the difference before you commit it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use stube::command::{
    Command, Grants, OpenSession, Profile, Purpose, Refusal, Reply, RoomSettings, ShardIndex, Transport,
};
use stube::ids::{Identity, ParticipantId, RoomId, SessionId, Text};
use stube::rtc::{Candidate, Crypto, Engine, EngineConfig, Input, Output};

const ROOM: RoomId = RoomId::from_bits(1);

fn engine(now: Instant) -> Engine {
    let candidate = |transport, address: &str| Candidate { transport, address: address.parse().unwrap() };
    let config = EngineConfig {
        shard: ShardIndex(0),
        candidates: vec![
            candidate(Transport::Udp, "192.0.2.10:7882"),
            candidate(Transport::Udp, "[2001:db8::10]:7882"),
            candidate(Transport::Tcp, "192.0.2.10:7881"),
        ],
        crypto: Crypto::generate().unwrap(),
        seed: [1; 32],
        connect_timeout: Duration::from_secs(15),
        restart_timeout: Duration::from_secs(30),
        loudest: 4,
        since_1970: Duration::from_secs(1_700_000_000),
    };
    let mut engine = Engine::new(config, now);
    let settings = RoomSettings {
        name: "golden".into(),
        metadata: Text::default(),
        max_participants: 100,
        empty_timeout: Duration::from_secs(300),
        departure_timeout: Duration::from_secs(20),
        max_duration: None,
    };
    assert!(order(&mut engine, Command::OpenRoom { room: ROOM, settings }, now).is_ok());
    engine
}

fn order(engine: &mut Engine, command: Command, now: Instant) -> Result<Reply, Refusal> {
    engine.handle(Input::Command { request: 7, command }, now);
    let mut reply = None;
    while let Some(output) = engine.poll_output(now) {
        if let Output::Reply { request: 7, result } = output {
            reply = Some(result);
        }
    }
    reply.expect("every command is answered")
}

fn join(engine: &mut Engine, offer: &str, now: Instant) -> Result<String, Refusal> {
    let profile = Profile {
        identity: Identity::from("golden"),
        name: Text::default(),
        metadata: Text::default(),
        attributes: Default::default(),
        grants: Grants::default(),
    };
    let open = OpenSession {
        room: ROOM,
        session: SessionId::from_bits(2),
        participant: ParticipantId::from_bits(3),
        profile,
        purpose: Purpose::Call,
        offer: offer.into(),
    };
    match order(engine, Command::OpenSession(Box::new(open)), now)? {
        Reply::Answer { sdp, ice: 1 } => Ok(sdp),
        other => panic!("not an answer: {other:?}"),
    }
}

/// Replaces what differs from run to run.
fn masked(answer: &str) -> String {
    let mut ssrcs: Vec<String> = Vec::new();
    let mut lines = Vec::new();
    for line in answer.split_terminator("\r\n") {
        let word = |prefix: &str| line.strip_prefix(prefix).is_some();
        lines.push(if word("o=") {
            "o=<origin>".to_owned()
        } else if word("a=ice-ufrag:") || word("a=ice-pwd:") || word("a=fingerprint:") {
            format!("{}:<random>", line.split(':').next().unwrap_or(""))
        } else if word("a=candidate:") {
            let rest: Vec<_> = line.split(' ').collect();
            let fixed = rest[1..].iter().take_while(|word| **word != "ufrag");
            format!("a=candidate:<foundation> {}", fixed.copied().collect::<Vec<_>>().join(" "))
        } else if word("a=ssrc:") || word("a=ssrc-group:") {
            mask_ssrc(line, &mut ssrcs)
        } else if word("a=msid:") || word("a=msid-semantic") {
            format!("{}:<ids>", line.split(':').next().unwrap_or(""))
        } else {
            line.to_owned()
        });
    }
    lines.join("\n") + "\n"
}

fn mask_ssrc(line: &str, known: &mut Vec<String>) -> String {
    let number = |text: &str, known: &mut Vec<String>| {
        let index = known.iter().position(|ssrc| ssrc == text).unwrap_or_else(|| {
            known.push(text.to_owned());
            known.len() - 1
        });
        format!("<ssrc{index}>")
    };
    if let Some(rest) = line.strip_prefix("a=ssrc-group:FID ") {
        let ssrcs: Vec<_> = rest.split(' ').map(|ssrc| number(ssrc, known)).collect();
        return format!("a=ssrc-group:FID {}", ssrcs.join(" "));
    }
    let rest = line.trim_start_matches("a=ssrc:");
    let (ssrc, attribute) = rest.split_once(' ').unwrap_or((rest, ""));
    format!("a=ssrc:{} {}:<ids>", number(ssrc, known), attribute.split(':').next().unwrap_or(""))
}

fn offers() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/offers");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 26, "the offers are there");
    files
}

#[test]
fn every_real_clients_offer_gets_its_golden_answer() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for file in offers() {
        let now = Instant::now();
        let offer = std::fs::read_to_string(&file).unwrap();
        let answer = match join(&mut engine(now), &offer, now) {
            Ok(answer) => {
                check_answer(&offer, &answer, &file);
                masked(&answer)
            }
            Err(refusal) => format!("refused: {refusal}\n"),
        };
        let golden = file.to_string_lossy().replace("/offers/", "/golden/");
        if update {
            std::fs::write(&golden, &answer).unwrap();
        }
        if std::fs::read_to_string(&golden).ok().as_deref() != Some(&answer) {
            wrong.push(file.file_name().unwrap().to_owned());
        }
    }
    assert!(wrong.is_empty(), "answers differ from their golden files: {wrong:?}");
}

/// What holds for every answer (RFC 9429 §5.3, RFC 9143, RFC 8853).
fn check_answer(offer: &str, answer: &str, file: &Path) {
    let lines = |text: &str, prefix: &str| -> Vec<String> {
        text.lines().map(str::trim_end).filter(|line| line.starts_with(prefix)).map(String::from).collect()
    };
    assert_eq!(lines(offer, "a=mid:"), lines(answer, "a=mid:"), "{file:?}: same m-lines in the same order");
    assert!(answer.contains("a=ice-lite\r\n") && answer.contains("a=group:BUNDLE"), "{file:?}");
    let setup = if offer.contains("a=setup:passive") { "a=setup:active" } else { "a=setup:passive" };
    assert!(answer.contains(setup), "{file:?}: {setup}");
    assert!(!answer.contains("a=sendrecv"), "{file:?}: a track is received, a slot sent");
    let first = lines(answer, "a=candidate:").first().cloned().unwrap_or_default();
    assert!(first.contains(" udp ") && first.contains("192.0.2.10"), "{file:?}: FFmpeg takes the first candidate");
    for simulcast in lines(offer, "a=simulcast:send ") {
        let mirrored = simulcast.replace(":send ", ":recv ");
        assert!(answer.contains(&mirrored), "{file:?}: {mirrored}");
    }
}

#[test]
fn a_refused_offer_leaves_no_trace() {
    let now = Instant::now();
    let mut engine = engine(now);
    let offer = std::fs::read_to_string(&offers()[1]).unwrap();
    let broken = offer.replace("a=group:BUNDLE", "a=x-group:BUNDLE");
    assert!(matches!(join(&mut engine, &broken, now), Err(Refusal::NotAcceptable(_))));
    assert!(matches!(join(&mut engine, "v=0\r\nm=", now), Err(Refusal::InvalidSdp(_))));
    assert_eq!(engine.stats().participants, 0);
    assert!(join(&mut engine, &offer, now).is_ok());
    assert_eq!(engine.stats().participants, 1);
}
