//! SDP fragments for trickled candidates and ICE restarts (RFC 8840 §9, RFC 9725 §4.3).

use crate::command::Refusal;

use super::offer::MAX_CANDIDATES;

/// What a client's fragment says.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Fragment {
    pub ufrag: Option<String>,
    pub pwd: Option<String>,
    /// How many `a=candidate` lines it has; an ICE-lite server needs none of them.
    pub candidates: usize,
}

impl Fragment {
    /// Reads a fragment. Lines it does not need are passed over.
    pub fn read(text: &str) -> Result<Self, Refusal> {
        let mut fragment = Self::default();
        for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
            if line.as_bytes().get(1) != Some(&b'=') {
                return Err(Refusal::InvalidSdp("a line of the fragment is not of the form x=value".into()));
            }
            if let Some(ufrag) = line.strip_prefix("a=ice-ufrag:") {
                fragment.ufrag.get_or_insert_with(|| ufrag.into());
            } else if let Some(pwd) = line.strip_prefix("a=ice-pwd:") {
                fragment.pwd.get_or_insert_with(|| pwd.into());
            } else if line.starts_with("a=candidate:") {
                fragment.candidates += 1;
            }
        }
        if fragment.candidates > MAX_CANDIDATES {
            return Err(Refusal::NotAcceptable("it has more than 64 candidates".into()));
        }
        Ok(fragment)
    }

    /// The new credentials, if they differ from what the session uses now.
    pub fn restart(&self, current_ufrag: &str) -> Result<Option<(&str, &str)>, Refusal> {
        let incomplete = || Refusal::InvalidSdp("a=ice-ufrag and a=ice-pwd belong together".into());
        match (self.ufrag.as_deref(), self.pwd.as_deref()) {
            (Some(ufrag), _) if ufrag == current_ufrag => Ok(None),
            (None, None) => Ok(None),
            (Some(ufrag), Some(pwd)) => Ok(Some((ufrag, pwd))),
            _ => Err(incomplete()),
        }
    }
}

/// The server's fragment, taken from the answer to the restarted offer.
pub fn from_answer(answer: &str) -> String {
    let first = |prefix: &str| answer.lines().find(|line| line.starts_with(prefix));
    let m_line = first("m=").unwrap_or("m=audio 9 UDP/TLS/RTP/SAVPF 0");
    let mid = first("a=mid:");
    let mut seen = std::collections::BTreeSet::new();
    let candidates = answer.lines().filter(|line| line.starts_with("a=candidate:") && seen.insert(*line));
    let lines = first("a=ice-lite")
        .into_iter()
        .chain(first("a=group:BUNDLE"))
        .chain(first("a=ice-ufrag:"))
        .chain(first("a=ice-pwd:"))
        .chain(Some(m_line))
        .chain(mid)
        .chain(candidates)
        .chain(Some("a=end-of-candidates"));
    lines.flat_map(|line| [line, "\r\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_and_credentials_are_read() {
        let text = "a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n\
            a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host\r\na=candidate:\r\na=end-of-candidates\r\n";
        let fragment = Fragment::read(text).unwrap();
        assert_eq!(fragment.candidates, 2);
        assert_eq!(fragment.restart("EsAw"), Ok(None));
        assert_eq!(fragment.restart("old"), Ok(Some(("EsAw", "P2uYro0UCOQ4zxjKXaWCBui1"))));
        let half = Fragment::read("a=ice-ufrag:new\r\n").unwrap();
        assert!(matches!(half.restart("old"), Err(Refusal::InvalidSdp(_))));
        assert!(Fragment::read("<html>").is_err());
        let flood = "a=candidate:1 1 udp 1 192.0.2.1 1 typ host\r\n".repeat(65);
        assert!(matches!(Fragment::read(&flood), Err(Refusal::NotAcceptable(_))));
    }

    #[test]
    fn the_servers_fragment_repeats_its_candidates_once() {
        let answer = "v=0\r\na=group:BUNDLE 0 1\r\na=ice-lite\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n\
            a=ice-ufrag:u\r\na=ice-pwd:p\r\na=candidate:1 x\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\na=candidate:1 x\r\n";
        let fragment = from_answer(answer);
        let expected = "a=ice-lite\r\na=group:BUNDLE 0 1\r\na=ice-ufrag:u\r\na=ice-pwd:p\r\n\
            m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=candidate:1 x\r\na=end-of-candidates\r\n";
        assert_eq!(fragment, expected);
    }
}
