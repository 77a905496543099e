//! SDP through the engine: an offer, then further offers and fragments, apart by NUL bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stube_fuzz::command::Reply;
use stube_fuzz::session::Session;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut texts = text.split('\0');
    let mut session = Session::default();
    if let Ok(reply) = session.join(texts.next().unwrap_or_default()) {
        check(&reply, text.len());
        for text in texts {
            let reply = if text.starts_with("v=0") { session.offer(text) } else { session.fragment(text) };
            reply.iter().for_each(|reply| check(reply, data.len()));
        }
    }
    session.end();
});

/// An answer is not much longer than what it answers.
fn check(reply: &Reply, bytes: usize) {
    let (text, start) = match reply {
        Reply::Answer { sdp, .. } => (sdp, "v=0\r\n"),
        Reply::Fragment { fragment, .. } => (fragment, "a=ice-lite\r\n"),
        Reply::Done => return,
        other => panic!("not an answer: {other:?}"),
    };
    assert!(text.starts_with(start) && text.len() < 20 * bytes + 4096, "{} bytes for {bytes}", text.len());
}
