//! What a session description says about media, as far as one who sends and receives RTP itself must know it.

use crate::command::MediaKind;
use crate::rtp::extensions::{Extension, ExtensionIds};

/// One m-line of audio or video.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Line {
    pub mid: String,
    pub kind: Option<MediaKind>,
    /// Port zero: there is nothing.
    pub rejected: bool,
    pub sends: bool,
    pub receives: bool,
    /// The first payload type that is no retransmission.
    pub payload_type: u8,
    /// What retransmissions of it go by.
    pub rtx_payload_type: Option<u8>,
    /// Media SSRCs with those of their retransmissions.
    pub ssrcs: Vec<(u32, Option<u32>)>,
}

/// A description's m-lines and extension ids, which BUNDLE makes the same on all of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Description {
    pub lines: Vec<Line>,
    pub extensions: ExtensionIds,
}

impl Description {
    /// Reads a description; what it does not know it passes over.
    pub fn read(text: &str) -> Self {
        let mut description = Self::default();
        let mut sections: Vec<Vec<&str>> = Vec::new();
        for line in text.lines() {
            if line.starts_with("m=") {
                sections.push(Vec::new());
            }
            if let Some(section) = sections.last_mut() {
                section.push(line);
            }
        }
        for section in &sections {
            description.lines.push(read_line(section));
            for map in section.iter().filter_map(|line| line.strip_prefix("a=extmap:")) {
                description.note_extension(map);
            }
        }
        description
    }

    /// `3 urn:…`, or `3/sendonly urn:…`.
    fn note_extension(&mut self, map: &str) {
        let mut words = map.split_whitespace();
        let id = words.next().and_then(|id| id.split('/').next()).and_then(|id| id.parse().ok());
        let extension = words.next().and_then(Extension::from_uri);
        if let (Some(id), Some(extension)) = (id, extension) {
            self.extensions.set(extension, id);
        }
    }

    /// The m-line of a mid.
    pub fn line(&self, mid: &str) -> Option<&Line> {
        self.lines.iter().find(|line| line.mid == mid)
    }
}

fn read_line(section: &[&str]) -> Line {
    let attribute =
        |name: &'static str| section.iter().filter_map(move |line| line.strip_prefix("a=")?.strip_prefix(name));
    let mut words = section.first().map_or("", |line| line.trim_start_matches("m=")).split_whitespace();
    let kind = match words.next() {
        Some("audio") => Some(MediaKind::Audio),
        Some("video") => Some(MediaKind::Video),
        _ => None,
    };
    let rejected = words.next() == Some("0");
    let payload_types: Vec<u8> = words.skip(1).filter_map(|word| word.parse().ok()).collect();
    // `97 apt=96`
    let repairs: Vec<(u8, u8)> = attribute("fmtp:").filter_map(|line| split_numbers(line, " apt=")).collect();
    let is_media = |pt: &&u8| !repairs.iter().any(|(rtx, _)| rtx == *pt);
    let payload_type = payload_types.iter().find(is_media).copied().unwrap_or(0);
    let both = attribute("sendrecv").next().is_some();
    Line {
        mid: attribute("mid:").next().unwrap_or("").to_owned(),
        kind,
        rejected,
        sends: both || attribute("sendonly").next().is_some(),
        receives: both || attribute("recvonly").next().is_some(),
        payload_type,
        rtx_payload_type: repairs.iter().find(|(_, media)| *media == payload_type).map(|(rtx, _)| *rtx),
        ssrcs: read_ssrcs(&attribute("ssrc:").collect::<Vec<_>>(), &attribute("ssrc-group:FID ").collect::<Vec<_>>()),
    }
}

fn split_numbers<A: std::str::FromStr, B: std::str::FromStr>(text: &str, between: &str) -> Option<(A, B)> {
    let (first, second) = text.trim().split_once(between)?;
    Some((first.parse().ok()?, second.parse().ok()?))
}

fn read_ssrcs(lines: &[&str], groups: &[&str]) -> Vec<(u32, Option<u32>)> {
    let pairs: Vec<(u32, u32)> = groups.iter().filter_map(|group| split_numbers(group, " ")).collect();
    let mut ssrcs: Vec<(u32, Option<u32>)> = Vec::new();
    for ssrc in lines.iter().filter_map(|line| line.split(' ').next()?.parse::<u32>().ok()) {
        let is_repair = pairs.iter().any(|(_, repair)| *repair == ssrc);
        if !is_repair && !ssrcs.iter().any(|(known, _)| *known == ssrc) {
            ssrcs.push((ssrc, pairs.iter().find(|(media, _)| *media == ssrc).map(|(_, repair)| *repair)));
        }
    }
    ssrcs
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "v=0\r\na=group:BUNDLE 0 1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=recvonly\r\n\
        a=rtpmap:111 opus/48000/2\r\na=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 97 96\r\na=mid:1\r\na=sendonly\r\na=rtpmap:96 VP8/90000\r\na=fmtp:97 apt=96\r\n\
        a=extmap:4/sendonly urn:ietf:params:rtp-hdrext:sdes:mid\r\na=ssrc-group:FID 7 8\r\na=ssrc:7 cname:x\r\n\
        a=ssrc:8 cname:x\r\na=ssrc:7 msid:a b\r\nm=application 0 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:2\r\n";

    #[test]
    fn lines_say_how_media_goes() {
        let description = Description::read(TEXT);
        let audio = description.line("0").unwrap();
        assert_eq!((audio.kind, audio.payload_type), (Some(MediaKind::Audio), 111));
        assert!(audio.receives && !audio.sends && audio.ssrcs.is_empty());
        let video = description.line("1").unwrap();
        assert_eq!((video.payload_type, video.rtx_payload_type), (96, Some(97)));
        assert!(video.sends && !video.rejected);
        assert_eq!(video.ssrcs, [(7, Some(8))]);
        assert!(description.line("2").unwrap().rejected);
        assert_eq!(description.extensions.id(Extension::Mid), Some(4));
        assert_eq!(description.extensions.id(Extension::AudioLevel), Some(1));
    }
}
