//! Finishes the answer that str0m wrote: payload types in the offer's order, header extensions that str0m does not know
//! but we pass on, RED, which it would negotiate for all m-lines or none, and the slots, which it does not know either.

use super::peer::SlotLine;
use crate::rtp::extensions::{Extension, ExtensionIds};

/// The only codec that RED carries, as `a=rtpmap` names it (RFC 7587 §7), and RED of it.
const OPUS_RTPMAP: &str = "opus/48000/2";
const RED_RTPMAP: &str = "red/48000/2";
/// Payload types that an RTP packet shows as if it were RTCP (RFC 5761 §4).
const LIKE_RTCP: std::ops::Range<u8> = 64..96;

/// The direction of an m-line, behind its extensions in what str0m writes.
const DIRECTIONS: [&str; 4] = ["a=sendrecv", "a=sendonly", "a=recvonly", "a=inactive"];
/// Extensions that str0m never answers. What a publisher says in them is passed on to receivers that have them too.
const PASSED_ON: [Extension; 3] = [Extension::AbsCaptureTime, Extension::PlayoutDelay, Extension::DependencyDescriptor];

/// RED (RFC 2198) of Opus on an m-line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Red {
    pub payload_type: u8,
    /// The payload type of Opus, which its blocks have.
    pub primary: u8,
}

/// The answer as the client gets it. `offered` is the offer str0m saw. What str0m answers `inactive` on a slot's m-line
/// becomes `sendonly` with the slot's SSRCs.
pub fn finish(answer: &str, offered: &str, is_slot: impl Fn(&str) -> bool, slots: &[SlotLine], cname: &str) -> String {
    let mixed = offered.lines().any(|line| line == "a=extmap-allow-mixed");
    let mut offered = sections(offered).skip(1);
    let mut finished = String::with_capacity(answer.len() + slots.len() * 256);
    for section in sections(answer) {
        let counterpart = if section.starts_with("m=") { offered.next().unwrap_or("") } else { "" };
        let mid = attribute(section, "a=mid:");
        let slot = slots.iter().find(|slot| Some(slot.name.as_str()) == mid && is_slot(&slot.name));
        // A rejected m-line (port 0) stays so.
        let slot = slot.filter(|_| !is_rejected(section));
        let red = red_of(counterpart).filter(|red| takes_red(section, *red, answer));
        for line in section.lines() {
            if line.starts_with("m=") {
                let all = red.map_or(line.to_owned(), |red| format!("{line} {}", red.payload_type));
                finished.push_str(&in_offered_order(&all, counterpart.lines().next().unwrap_or("")));
                finished.push_str("\r\n");
                continue;
            }
            if DIRECTIONS.contains(&line) {
                push_extensions(&mut finished, section, counterpart, mixed);
            }
            if slot.is_some() && line == "a=inactive" {
                finished.push_str("a=sendonly");
            } else {
                finished.push_str(line);
            }
            finished.push_str("\r\n");
        }
        if let Some(Red { payload_type, primary }) = red {
            finished.push_str(&format!("a=rtpmap:{payload_type} {RED_RTPMAP}\r\n"));
            finished.push_str(&format!("a=fmtp:{payload_type} {primary}/{primary}\r\n"));
        }
        if let Some(slot) = slot {
            push_ssrcs(&mut finished, section, slot, cname);
        }
    }
    finished
}

/// Answers the offered extensions that str0m leaves out, under the offered ids (RFC 8285 §5).
fn push_extensions(text: &mut String, section: &str, counterpart: &str, mixed: bool) {
    let answered = |uri: &str| extmaps(section).any(|(_, known)| known == uri);
    for (id, uri) in extmaps(counterpart) {
        let Some(extension) = Extension::from_uri(uri).filter(|extension| PASSED_ON.contains(extension)) else {
            continue;
        };
        // Descriptors with a structure need two-byte elements, which not every client takes among others (§4.1.2).
        let fits = mixed || extension != Extension::DependencyDescriptor;
        if fits && !answered(uri) && id.parse::<u8>().is_ok() {
            text.push_str(&format!("a=extmap:{id} {uri}\r\n"));
        }
    }
}

/// Id, which may carry a direction, and URI of each header extension of a section.
fn extmaps(section: &str) -> impl Iterator<Item = (&str, &str)> {
    section.lines().filter_map(|line| {
        let (id, uri) = line.strip_prefix("a=extmap:")?.split_once(' ')?;
        // The URI may have attributes behind it.
        Some((id, uri.split_whitespace().next().unwrap_or("")))
    })
}

/// RED on the m-line of this MID, or on any.
pub fn red(answer: &str, mid: Option<&str>) -> Vec<Red> {
    let wanted = |section: &&str| mid.is_none_or(|mid| attribute(section, "a=mid:") == Some(mid));
    sections(answer).filter(wanted).filter_map(red_of).collect()
}

/// The RED that an m-section lists, if all its blocks are Opus.
fn red_of(section: &str) -> Option<Red> {
    let all = |name: &'static str| section.lines().filter_map(move |line| line.strip_prefix(name)?.split_once(' '));
    let of = |pt: &str| {
        let (_, blocks) = all("a=fmtp:").find(|(known, _)| *known == pt)?;
        let primary = blocks.split('/').next()?;
        let opus = all("a=rtpmap:").any(|(known, codec)| known == primary && codec.eq_ignore_ascii_case(OPUS_RTPMAP));
        let alike = blocks.split('/').all(|block| block == primary);
        let listed = section.lines().next()?.split_whitespace().skip(3).any(|known| known == pt);
        let payload_type = pt.parse().ok().filter(|pt| *pt < 128 && !LIKE_RTCP.contains(pt))?;
        (opus && alike && listed).then_some(Red { payload_type, primary: primary.parse().ok()? })
    };
    all("a=rtpmap:").filter(|(_, codec)| codec.eq_ignore_ascii_case(RED_RTPMAP)).find_map(|(pt, _)| of(pt))
}

/// Whether RED as offered fits an answered m-section: Opus has the payload type that RED names, and nothing that of RED,
/// on no m-line (RFC 9143 §9.1).
fn takes_red(section: &str, red: Red, answer: &str) -> bool {
    let opus = format!("a=rtpmap:{} {OPUS_RTPMAP}", red.primary);
    let taken = format!("a=rtpmap:{} ", red.payload_type);
    let has_opus = section.lines().any(|line| line.eq_ignore_ascii_case(&opus));
    has_opus && !is_rejected(section) && !answer.lines().any(|line| line.starts_with(&taken))
}

/// Whether the m-line has port 0 (RFC 3264 §6).
fn is_rejected(section: &str) -> bool {
    section.split_whitespace().nth(1) == Some("0")
}

fn push_ssrcs(text: &mut String, section: &str, slot: &SlotLine, cname: &str) {
    let (ssrc, rtx) = (slot.ssrc, slot.rtx_ssrc);
    let msid = attribute(section, "a=msid:").unwrap_or("- -");
    let mut announce = |ssrc: u32| {
        text.push_str(&format!("a=ssrc:{ssrc} cname:{cname}\r\na=ssrc:{ssrc} msid:{msid}\r\n"));
    };
    announce(ssrc);
    if section.lines().any(|line| line.starts_with("a=rtpmap:") && line.contains(" rtx/")) {
        announce(rtx);
        text.push_str(&format!("a=ssrc-group:FID {ssrc} {rtx}\r\n"));
    }
}

/// str0m lists payload types in its own order, but a client sends what stands first, and its order is its user's
/// preference (RFC 3264 §6.1).
fn in_offered_order(line: &str, offered: &str) -> String {
    let preference: Vec<&str> = offered.split_whitespace().skip(3).collect();
    let mut words: Vec<&str> = line.split_whitespace().collect();
    let place = |pt: &&str| preference.iter().position(|other| other == pt).unwrap_or(usize::MAX);
    // The first three words are media, port and protocol; a stable sort keeps unknown ones last as they were.
    if let Some(payload_types) = words.get_mut(3..) {
        payload_types.sort_by_key(place);
    }
    words.join(" ")
}

/// The header extensions agreed for the m-line of this MID, or for all.
pub fn extension_ids(answer: &str, mid: Option<&str>) -> ExtensionIds {
    let mut ids = ExtensionIds::default();
    let wanted = |section: &&str| mid.is_none_or(|mid| attribute(section, "a=mid:") == Some(mid));
    for section in sections(answer).filter(wanted) {
        for (id, uri) in extmaps(section) {
            // The id may carry a direction (RFC 8285 §5).
            let id = id.split('/').next().and_then(|id| id.parse::<u8>().ok());
            if let (Some(id), Some(extension)) = (id, Extension::from_uri(uri)) {
                ids.set(extension, id);
            }
        }
    }
    ids
}

/// The session part, then each m-section.
fn sections(text: &str) -> impl Iterator<Item = &str> {
    let starts: Vec<usize> = std::iter::once(0).chain(text.match_indices("\nm=").map(|(at, _)| at + 1)).collect();
    let ends: Vec<usize> = starts.iter().skip(1).copied().chain([text.len()]).collect();
    starts.into_iter().zip(ends).filter_map(|(start, end)| text.get(start..end))
}

fn attribute<'a>(section: &'a str, name: &str) -> Option<&'a str> {
    section.lines().find_map(|line| line.strip_prefix(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::MediaKind;

    const OFFER: &str = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 63 111\r\nm=video 9 UDP/TLS/RTP/SAVPF 98 99 96 97\r\n";
    const ANSWER: &str = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=recvonly\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 96 97 98 99\r\na=mid:1\r\na=extmap:4/sendrecv urn:3gpp:video-orientation\r\n\
        a=inactive\r\na=msid:s t\r\na=rtpmap:97 rtx/90000\r\n";

    fn slot() -> SlotLine {
        SlotLine { name: "1".into(), kind: MediaKind::Video, ssrc: 77, rtx_ssrc: 78, first_seq: 1, red: None }
    }

    #[test]
    fn what_the_client_prefers_comes_first_and_slots_send() {
        let finished = finish(ANSWER, OFFER, |_| true, &[slot()], "c");
        let expected = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=recvonly\r\n\
            m=video 9 UDP/TLS/RTP/SAVPF 98 99 96 97\r\na=mid:1\r\na=extmap:4/sendrecv urn:3gpp:video-orientation\r\n\
            a=sendonly\r\na=msid:s t\r\na=rtpmap:97 rtx/90000\r\na=ssrc:77 cname:c\r\na=ssrc:77 msid:s t\r\n\
            a=ssrc:78 cname:c\r\na=ssrc:78 msid:s t\r\na=ssrc-group:FID 77 78\r\n";
        assert_eq!(finished, expected);
        assert_eq!(extension_ids(&finished, Some("1")).id(Extension::VideoOrientation), Some(4));
        assert_eq!(extension_ids(&finished, Some("0")).id(Extension::VideoOrientation), None);
    }

    #[test]
    fn extensions_that_str0m_leaves_out_are_answered() {
        const DESCRIPTOR: &str = Extension::DependencyDescriptor.uri();
        const DELAY: &str = Extension::PlayoutDelay.uri();
        let offer = OFFER
            .replace("97\r\n", &format!("97\r\na=extmap:13 {DESCRIPTOR}\r\na=extmap:5 {DELAY}\r\na=extmap:7 x\r\n"));
        for (offer, descriptor) in
            [(offer.clone(), None), (offer.replacen("m=", "a=extmap-allow-mixed\r\nm=", 1), Some(13))]
        {
            let finished = finish(ANSWER, &offer, |_| true, &[slot()], "c");
            let ids = extension_ids(&finished, Some("1"));
            assert_eq!(ids.id(Extension::DependencyDescriptor), descriptor);
            assert_eq!((ids.id(Extension::PlayoutDelay), ids.id(Extension::VideoOrientation)), (Some(5), Some(4)));
            assert!(!finished.contains("extmap:7"), "what we do not know is not agreed to");
            assert_eq!(extension_ids(&finished, Some("0")).id(Extension::PlayoutDelay), None, "not offered there");
        }
    }

    #[test]
    fn a_line_that_is_no_slot_or_rejected_stays_as_it_is() {
        assert!(!finish(ANSWER, OFFER, |_| false, &[slot()], "c").contains("sendonly"));
        let rejected = ANSWER.replace("m=video 9", "m=video 0");
        assert!(!finish(&rejected, OFFER, |_| true, &[slot()], "c").contains("ssrc"));
    }

    const RED_LINES: &str = "a=rtpmap:111 OPUS/48000/2\r\na=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\n";

    fn with_red(offered: &str) -> String {
        let offer = OFFER.replacen("m=video", &format!("{offered}m=video"), 1);
        let answer = ANSWER.replacen("m=video", "a=rtpmap:111 opus/48000/2\r\nm=video", 1);
        finish(&answer, &offer, |_| true, &[slot()], "c")
    }

    #[test]
    fn red_of_opus_is_answered_where_it_is_offered() {
        let finished = with_red(RED_LINES);
        let expected = "m=audio 9 UDP/TLS/RTP/SAVPF 63 111\r\na=mid:0\r\na=recvonly\r\na=rtpmap:111 opus/48000/2\r\n\
            a=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\nm=video";
        assert!(finished.contains(expected), "{finished}");
        let negotiated = [Red { payload_type: 63, primary: 111 }];
        assert_eq!((red(&finished, Some("0")), red(&finished, None)), (negotiated.into(), negotiated.into()));
        assert_eq!(red(&finished, Some("1")), []);
    }

    #[test]
    fn other_red_is_not_answered() {
        for (wrong, why) in [
            (RED_LINES.replace("111/111", "111/110"), "blocks of several types"),
            (RED_LINES.replace("fmtp:63", "fmtp:62"), "blocks of no type"),
            (RED_LINES.replace("red/48000/2", "red/8000"), "not of Opus"),
            (RED_LINES.replace("OPUS", "x"), "not of Opus"),
            (RED_LINES.replace(":63", ":72"), "looks like RTCP"),
            (RED_LINES.replace(":63", ":61"), "not listed"),
            (RED_LINES.replace(":63", ":98"), "not listed"),
        ] {
            let finished = with_red(&wrong);
            assert!(!finished.contains("red/") && red(&finished, None).is_empty(), "{why}");
        }
        let rejected =
            ANSWER.replacen("audio 9", "audio 0", 1).replacen("m=video", "a=rtpmap:111 opus/48000/2\r\nm=video", 1);
        let offer = OFFER.replacen("m=video", &format!("{RED_LINES}m=video"), 1);
        assert!(!finish(&rejected, &offer, |_| true, &[], "c").contains("red/"));
        let taken = format!("{ANSWER}a=rtpmap:63 VP8/90000\r\na=rtpmap:111 opus/48000/2\r\n");
        assert!(!finish(&taken, &offer, |_| true, &[], "c").contains("red/"));
    }
}
