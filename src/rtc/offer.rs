//! Reads a client's SDP offer as far as we must understand it ourselves, checks it, and prepares it for str0m.

use std::fmt::Write as _;

use crate::command::{MediaKind, Refusal};

/// m-lines in one offer; 16 audio and 25 video slots, some tracks and a data channel fit many times.
const MAX_LINES: usize = 128;
/// Receiving m-lines by kind (the wire contract).
const MAX_AUDIO_SLOTS: usize = 16;
const MAX_VIDEO_SLOTS: usize = 25;
/// Publishing m-lines; microphone, camera, screen and its sound are four.
const MAX_TRACKS: usize = 8;
/// Simulcast encodings of one track (the wire contract).
const MAX_ENCODINGS: usize = 3;
/// SSRCs announced for one m-line that are taken note of.
const MAX_SSRCS: usize = 8;
/// Longest line, in bytes; the longest that browsers write are fingerprints and candidates below 300.
const MAX_LINE_BYTES: usize = 4096;
/// An RFC 8840 fragment may carry this many candidates at most, and an offer four times as many: browsers repeat them
/// on each m-line.
pub const MAX_CANDIDATES: usize = 64;

/// A checked offer.
#[derive(Clone)]
pub struct Offer {
    /// For str0m: as the client wrote it, but every track is `sendonly` and every slot `inactive`.
    pub text: String,
    pub lines: Vec<Line>,
}

/// One m-line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub mid: String,
    pub purpose: LinePurpose,
    /// Send RIDs in the order of `a=simulcast`.
    pub rids: Vec<String>,
    /// The media SSRCs that are announced for it; none where RIDs or MIDs tell.
    pub ssrcs: Vec<u32>,
    /// Announced retransmission streams: the media SSRC and its RTX SSRC (RFC 5576 §4.2 FID).
    pub rtx_ssrcs: Vec<(u32, u32)>,
}

impl Line {
    /// Whether it is a slot.
    pub fn receives(&self) -> bool {
        matches!(self.purpose, LinePurpose::Receive(_))
    }
}

/// What an m-line is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinePurpose {
    Publish(MediaKind),
    Receive(MediaKind),
    Idle(MediaKind),
    DataChannel,
}

impl Offer {
    /// Reads and checks an offer.
    pub fn read(text: &str) -> Result<Self, Refusal> {
        if !text.trim_start().starts_with("v=0") {
            return Err(invalid("it does not begin with v=0"));
        }
        let (session, sections) = split(text)?;
        let bundle = bundle_mids(&session);
        let lines = sections.iter().map(|section| section.read(&session)).collect::<Result<Vec<_>, _>>()?;
        check_whole(&lines, bundle.as_deref(), &session, &sections)?;
        Ok(Self { text: rewrite(&session, &sections, &lines), lines })
    }

    /// The client's ICE username fragment.
    pub fn ufrag(&self) -> &str {
        self.text.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:")).unwrap_or("")
    }

    /// The same offer with other ICE credentials: what restarts ICE.
    pub fn with_credentials(&self, ufrag: &str, pwd: &str) -> String {
        let mut text = String::with_capacity(self.text.len());
        for line in self.text.lines() {
            // Writing into a String cannot fail.
            let _ = if line.starts_with("a=ice-ufrag:") {
                write!(text, "a=ice-ufrag:{ufrag}\r\n")
            } else if line.starts_with("a=ice-pwd:") {
                write!(text, "a=ice-pwd:{pwd}\r\n")
            } else {
                write!(text, "{line}\r\n")
            };
        }
        text
    }
}

/// The lines of one m-section, or of the session part.
struct Section<'a> {
    lines: Vec<&'a str>,
}

impl<'a> Section<'a> {
    fn attribute(&self, name: &str) -> Option<&'a str> {
        self.lines.iter().find_map(|line| {
            let rest = line.strip_prefix("a=")?.strip_prefix(name)?;
            if rest.is_empty() { Some("") } else { rest.strip_prefix(':') }
        })
    }

    fn direction(&self, session: &Section<'_>) -> &'static str {
        let own = DIRECTIONS.into_iter().find(|direction| self.attribute(direction).is_some());
        let inherited = || DIRECTIONS.into_iter().find(|direction| session.attribute(direction).is_some());
        // RFC 8866 §6.7: without an attribute a line is sendrecv.
        own.or_else(inherited).unwrap_or("sendrecv")
    }

    fn read(&self, session: &Section<'_>) -> Result<Line, Refusal> {
        let mut words = self.lines[0].trim_start_matches("m=").split_whitespace();
        let (media, port, protocol) = (words.next(), words.next(), words.next());
        let port: u16 = port.and_then(|port| port.parse().ok()).ok_or_else(|| invalid("an m-line has no port"))?;
        let kind = match media {
            Some("audio") => MediaKind::Audio,
            Some("video") => MediaKind::Video,
            Some("application") => return self.read_application(),
            _ => return Err(unacceptable("only audio, video and application m-lines are supported")),
        };
        if !matches!(protocol, Some("UDP/TLS/RTP/SAVPF" | "TCP/DTLS/RTP/SAVPF")) {
            return Err(unacceptable("media must use UDP/TLS/RTP/SAVPF (DTLS-SRTP with feedback)"));
        }
        let stopped = port == 0 && self.attribute("bundle-only").is_none();
        if !stopped && self.attribute("rtcp-mux").is_none() {
            return Err(unacceptable("every m-line needs a=rtcp-mux"));
        }
        if self.attribute("crypto").is_some() {
            return Err(unacceptable("a=crypto (SDES) is not supported; use DTLS-SRTP"));
        }
        let purpose = match self.direction(session) {
            _ if stopped => LinePurpose::Idle(kind),
            "sendrecv" | "sendonly" => LinePurpose::Publish(kind),
            "recvonly" => LinePurpose::Receive(kind),
            _ => LinePurpose::Idle(kind),
        };
        let (ssrcs, rtx_ssrcs) = self.ssrcs();
        Ok(Line { mid: self.mid()?, purpose, rids: self.send_rids()?, ssrcs, rtx_ssrcs })
    }

    fn read_application(&self) -> Result<Line, Refusal> {
        let purpose = LinePurpose::DataChannel;
        Ok(Line { mid: self.mid()?, purpose, rids: Vec::new(), ssrcs: Vec::new(), rtx_ssrcs: Vec::new() })
    }

    /// What `a=ssrc` and `a=ssrc-group:FID` announce; nonsense in them is passed over.
    fn ssrcs(&self) -> (Vec<u32>, Vec<(u32, u32)>) {
        let (mut media, mut rtx) = (Vec::new(), Vec::new());
        for line in &self.lines {
            let number = |word: Option<&str>| word.and_then(|word| word.parse::<u32>().ok());
            if let Some(pair) = line.strip_prefix("a=ssrc-group:FID ") {
                let mut words = pair.split_whitespace();
                if let (Some(main), Some(other)) = (number(words.next()), number(words.next())) {
                    rtx.push((main, other));
                }
            } else if let Some(ssrc) = line.strip_prefix("a=ssrc:").and_then(|rest| number(rest.split(' ').next()))
                && !media.contains(&ssrc)
            {
                media.push(ssrc);
            }
        }
        media.retain(|ssrc| rtx.iter().all(|(_, other)| other != ssrc));
        media.truncate(MAX_SSRCS);
        rtx.truncate(MAX_SSRCS);
        (media, rtx)
    }

    fn mid(&self) -> Result<String, Refusal> {
        let mid = self
            .attribute("mid")
            .filter(|mid| !mid.is_empty())
            .ok_or_else(|| unacceptable("an m-line has no a=mid"))?;
        // str0m keeps mids in 16 bytes of ASCII letters and digits; another character would be changed silently.
        let fits = mid.len() <= 16 && mid.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if fits { Ok(mid.into()) } else { Err(unacceptable("a=mid must be 1 to 16 ASCII letters and digits")) }
    }

    /// RFC 8853 §5.1: streams are separated by `;`, alternatives by `,`, and `~` marks a paused one.
    fn send_rids(&self) -> Result<Vec<String>, Refusal> {
        let Some(simulcast) = self.attribute("simulcast") else { return Ok(Vec::new()) };
        let mut words = simulcast.split_whitespace();
        while let Some(direction) = words.next() {
            let Some(streams) = words.next().filter(|_| direction == "send") else { continue };
            let first = |stream: &str| stream.split(',').next().unwrap_or("").trim_start_matches('~').to_owned();
            let rids: Vec<String> = streams.split(';').map(first).collect();
            if rids.len() > MAX_ENCODINGS {
                return Err(unacceptable("a track has at most three simulcast encodings"));
            }
            let fits = |rid: &String| (1..=8).contains(&rid.len()) && rid.bytes().all(|b| b.is_ascii_alphanumeric());
            if !rids.iter().all(fits) {
                return Err(unacceptable("a=rid must be 1 to 8 ASCII letters and digits"));
            }
            return Ok(rids);
        }
        Ok(Vec::new())
    }
}

const DIRECTIONS: [&str; 4] = ["sendrecv", "sendonly", "recvonly", "inactive"];

fn invalid(why: &str) -> Refusal {
    Refusal::InvalidSdp(why.into())
}

fn unacceptable(why: &str) -> Refusal {
    Refusal::NotAcceptable(why.into())
}

fn split(text: &str) -> Result<(Section<'_>, Vec<Section<'_>>), Refusal> {
    let (mut session, mut sections) = (Section { lines: Vec::new() }, Vec::<Section<'_>>::new());
    let mut candidates = 0;
    for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
        if line.len() > MAX_LINE_BYTES {
            return Err(invalid("a line is longer than 4096 bytes"));
        }
        if line.as_bytes().get(1) != Some(&b'=') {
            return Err(invalid("a line is not of the form x=value"));
        }
        candidates += usize::from(line.starts_with("a=candidate:"));
        if line.starts_with("m=") {
            sections.push(Section { lines: Vec::new() });
        }
        sections.last_mut().unwrap_or(&mut session).lines.push(line);
    }
    if sections.is_empty() {
        return Err(invalid("it has no m-line"));
    }
    if sections.len() > MAX_LINES || candidates > MAX_CANDIDATES * 4 {
        return Err(unacceptable("it has more m-lines or candidates than any call needs"));
    }
    Ok((session, sections))
}

fn bundle_mids<'a>(session: &Section<'a>) -> Option<Vec<&'a str>> {
    let groups = session.lines.iter().find_map(|line| line.strip_prefix("a=group:BUNDLE"));
    groups.map(|mids| mids.split_whitespace().collect())
}

fn check_whole(
    lines: &[Line],
    bundle: Option<&[&str]>,
    session: &Section<'_>,
    sections: &[Section<'_>],
) -> Result<(), Refusal> {
    let count = |purpose| lines.iter().filter(|line| line.purpose == purpose).count();
    if count(LinePurpose::Receive(MediaKind::Audio)) > MAX_AUDIO_SLOTS
        || count(LinePurpose::Receive(MediaKind::Video)) > MAX_VIDEO_SLOTS
    {
        return Err(unacceptable("at most 16 audio and 25 video m-lines can be recvonly"));
    }
    let tracks = count(LinePurpose::Publish(MediaKind::Audio)) + count(LinePurpose::Publish(MediaKind::Video));
    if tracks > MAX_TRACKS {
        return Err(unacceptable("at most 8 m-lines can send"));
    }
    let bundled = |line: &Line| bundle.is_some_and(|mids| mids.contains(&line.mid.as_str()));
    let must_bundle = |line: &&Line| !matches!(line.purpose, LinePurpose::Idle(_));
    if !lines.iter().filter(must_bundle).all(bundled) {
        return Err(unacceptable("every m-line must be in a=group:BUNDLE"));
    }
    let somewhere = |name: &str| {
        session.attribute(name).is_some() || sections.iter().any(|section| section.attribute(name).is_some())
    };
    if !somewhere("ice-ufrag") || !somewhere("ice-pwd") {
        return Err(unacceptable("it has no a=ice-ufrag and a=ice-pwd"));
    }
    if !somewhere("fingerprint") {
        return Err(unacceptable("it has no a=fingerprint; DTLS-SRTP is required"));
    }
    Ok(())
}

/// A `sendrecv` line publishes and does not receive here, so the answer must be `recvonly`; str0m gives that for
/// `sendonly`. Media itself passes str0m by (`super::ingress`, `super::egress`), so it sees neither slots, which are
/// `inactive` to it and cost it nothing, nor SSRCs.
fn rewrite(session: &Section<'_>, sections: &[Section<'_>], lines: &[Line]) -> String {
    let mut text = String::new();
    let mut push = |line: &str| {
        text.push_str(line);
        text.push_str("\r\n");
    };
    // The client's candidates are left out: an ICE-lite server sends no checks, it answers those that come, wherever
    // from. So no address is kept, and no flood of candidates costs anything.
    let is_for_str0m = |line: &&&str| {
        let name = line.strip_prefix("a=").unwrap_or("");
        let is_ssrc = name.starts_with("ssrc:") || name.starts_with("ssrc-group:");
        !DIRECTIONS.contains(&name) && !name.starts_with("candidate:") && name != "end-of-candidates" && !is_ssrc
    };
    session.lines.iter().filter(is_for_str0m).for_each(|line| push(line));
    for (section, line) in sections.iter().zip(lines) {
        let direction = match line.purpose {
            LinePurpose::Publish(_) => Some("a=sendonly"),
            LinePurpose::Receive(_) | LinePurpose::Idle(_) => Some("a=inactive"),
            LinePurpose::DataChannel => None,
        };
        section.lines.iter().filter(is_for_str0m).for_each(|line| push(line));
        direction.into_iter().for_each(&mut push);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n";
    const ICE: &str = "a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\na=fingerprint:sha-256 AA\r\n";

    fn media(kind: &str, mid: &str, rest: &str) -> String {
        format!("m={kind} 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\na=rtcp-mux\r\n{ICE}{rest}")
    }

    fn refusal(text: &str) -> Refusal {
        match Offer::read(text) {
            Err(refusal) => refusal,
            Ok(_) => panic!("accepted"),
        }
    }

    #[test]
    fn lines_are_tracks_and_slots() {
        let text = format!(
            "{HEAD}a=group:BUNDLE 0 1 2\r\n{}{}{}",
            media("audio", "0", ""),
            media("video", "1", "a=sendonly\r\na=rid:q send\r\na=rid:f send\r\na=simulcast:send q,x;~f\r\n"),
            media("video", "2", "a=recvonly\r\n"),
        );
        let offer = Offer::read(&text).unwrap();
        let purposes: Vec<_> = offer.lines.iter().map(|line| line.purpose).collect();
        let expected = [
            LinePurpose::Publish(MediaKind::Audio),
            LinePurpose::Publish(MediaKind::Video),
            LinePurpose::Receive(MediaKind::Video),
        ];
        assert_eq!(purposes, expected);
        assert_eq!(offer.lines[1].rids, ["q", "f"]);
        assert_eq!(offer.text.matches("a=sendonly").count(), 2, "the line without a direction sends");
    }

    #[test]
    fn what_cannot_be_accepted_is_said() {
        let one = |rest: &str| format!("{HEAD}a=group:BUNDLE 0\r\n{}", media("audio", "0", rest));
        let without = |what: &str| {
            let kept =
                one("").lines().filter(|line| !line.starts_with(what)).map(|line| format!("{line}\r\n")).collect();
            let kept: String = kept;
            refusal(&kept)
        };
        for what in ["a=group", "a=ice-ufrag", "a=ice-pwd", "a=fingerprint", "a=rtcp-mux", "a=mid"] {
            assert!(matches!(without(what), Refusal::NotAcceptable(_)), "{what}");
        }
        assert!(matches!(refusal(&one("a=crypto:1 x\r\n")), Refusal::NotAcceptable(_)));
        assert!(matches!(refusal(&one("").replace("UDP/TLS/RTP/SAVPF", "RTP/AVP")), Refusal::NotAcceptable(_)));
        let many: String = (0..17).map(|n| media("audio", &format!("{n}"), "a=recvonly\r\n")).collect();
        let mids: String = (0..17).map(|n| format!(" {n}")).collect();
        assert!(matches!(refusal(&format!("{HEAD}a=group:BUNDLE{mids}\r\n{many}")), Refusal::NotAcceptable(_)));
    }

    #[test]
    fn what_is_not_sdp_is_invalid() {
        for text in ["", "hello", "v=0\r\n", "v=0\r\nnonsense\r\n", &format!("{HEAD}m=audio x y\r\n")] {
            assert!(matches!(refusal(text), Refusal::InvalidSdp(_)), "{text}");
        }
    }

    #[test]
    fn credentials_are_exchanged_for_a_restart() {
        let text = format!(
            "{HEAD}a=group:BUNDLE 0\r\n{}",
            media("audio", "0", "a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n")
        );
        let restarted = Offer::read(&text).unwrap().with_credentials("newu", "newpassword");
        assert!(restarted.contains("a=ice-ufrag:newu\r\n") && restarted.contains("a=ice-pwd:newpassword\r\n"));
        assert!(!restarted.contains("abcd") && !restarted.contains("candidate"));
    }
}
