//! Datagrams at an engine in which one session waits for its client: from strangers, and from an address that a binding
//! request has proven. Every piece of the input is a kind, a length and contents.
#![no_main]

use std::net::SocketAddr;
use std::time::Duration;

use aws_lc_rs::hmac;
use libfuzzer_sys::fuzz_target;
use stube_fuzz::command::Reply;
use stube_fuzz::input::Input;
use stube_fuzz::session::Session;

const OFFER: &str = include_str!("../../tests/offers/chromium_plain_vp8.sdp");
/// What an input may make the server work for.
const MAX_PIECES: usize = 16;

fuzz_target!(|data: &[u8]| {
    let mut session = Session::default();
    let Ok(Reply::Answer { sdp: answer, .. }) = session.join(OFFER) else { panic!("not an answer") };
    let stranger = SocketAddr::from(([198, 51, 100, 1], 1000));
    let client = SocketAddr::from(([198, 51, 100, 2], 2000));
    let mut input = Input(data);
    for _ in 0..MAX_PIECES {
        let (Some(kind), Some(contents)) = (input.u8(), input.string()) else { break };
        match kind % 8 {
            0 => quiet(&mut session, stranger, contents),
            1 => quiet(&mut session, stranger, &request(&answer, contents, false)),
            2 | 3 => {
                let request = request(&answer, contents, true);
                let (datagrams, bytes) = session.receive(client, &request);
                assert!(datagrams <= 1 && bytes <= 2 * request.len() + 64, "{bytes} bytes for {}", request.len());
            }
            4 => session.pass(Duration::from_millis(contents.len() as u64 * 16)),
            _ => {
                let (datagrams, _) = session.receive(client, contents);
                assert!(datagrams <= 16, "{datagrams} datagrams for one");
            }
        }
    }
    session.end();
});

/// Who has proven nothing gets no answer: the port neither reflects nor amplifies.
fn quiet(session: &mut Session, stranger: SocketAddr, contents: &[u8]) {
    assert_eq!(session.receive(stranger, contents), (0, 0));
}

fn line<'a>(sdp: &'a str, prefix: &str) -> &'a str {
    sdp.lines().find_map(|line| line.strip_prefix(prefix)).expect("every answer has it")
}

/// A binding request to the session, with these attributes besides its name and its integrity.
fn request(answer: &str, attributes: &[u8], authentic: bool) -> Vec<u8> {
    let mut bytes = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    bytes.extend([9; 12]);
    let name = format!("{}:{}", line(answer, "a=ice-ufrag:"), line(OFFER, "a=ice-ufrag:"));
    bytes.extend([0, 6, 0, name.len() as u8]);
    bytes.extend(name.as_bytes());
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend(&attributes[..attributes.len().min(1200)]);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    set_length(&mut bytes, 24);
    let password = if authentic { line(answer, "a=ice-pwd:") } else { "wrong" };
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
    let tag = hmac::sign(&key, &bytes);
    bytes.extend([0, 8, 0, 20]);
    bytes.extend(tag.as_ref());
    bytes
}

/// The length counts what follows the header, and this much more that is to come.
fn set_length(bytes: &mut [u8], more: usize) {
    let length = (bytes.len() - 20 + more) as u16;
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
}
