//! What a new connection is, by its first bytes: TLS, HTTP, or ICE-TCP on a port that they share.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::shard::{FIRST_FRAME_MAX, Shards};
use crate::tls::{CHALLENGE, Tls};

/// From accepting a connection to knowing what it is, its TLS handshake included.
pub const OPENING_TIMEOUT: Duration = Duration::from_secs(10);

/// How often to look for more where the first bytes came one by one; who does that is in no hurry.
const LOOK: Duration = Duration::from_millis(20);

/// A frame's length (RFC 4571), then as much of STUN's header as has a fixed value (RFC 8489 §5).
const STUN_BYTES: usize = 2 + 8;
const BINDING_REQUEST: [u8; 2] = [0, 1];
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
/// STUN's header.
const HEADER_BYTES: usize = 20;

/// What the first bytes of a connection say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// A handshake record (RFC 8446 §5.1).
    Tls,
    /// A method, in capitals.
    Http,
    /// A framed binding request.
    IceTcp,
    Unknown,
}

/// What these bytes begin; none if there are too few of them to know. No two can be meant: a frame that begins like TLS
/// or HTTP would be longer than a first frame may be.
pub fn recognise(bytes: &[u8]) -> Option<Opening> {
    match bytes {
        [] | [0x16] => None,
        [0x16, 0x03, ..] => Some(Opening::Tls),
        [b'A'..=b'Z', ..] => Some(Opening::Http),
        _ => recognise_frame(bytes),
    }
}

fn recognise_frame(bytes: &[u8]) -> Option<Opening> {
    let known = bytes.get(..STUN_BYTES).unwrap_or(bytes);
    let (length, message) = known.split_at(known.len().min(2));
    let fits = match length {
        [high, low] => {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            let body = length.checked_sub(HEADER_BYTES).and_then(|body| u16::try_from(body).ok());
            let body = body.filter(|body| length <= FIRST_FRAME_MAX && body % 4 == 0);
            body.is_some_and(|body| {
                let expected = [BINDING_REQUEST, body.to_be_bytes()].concat();
                expected.iter().chain(&MAGIC_COOKIE).zip(message).all(|(expected, byte)| expected == byte)
            })
        }
        [high] => usize::from(*high) << 8 <= FIRST_FRAME_MAX,
        _ => true,
    };
    match (fits, known.len() == STUN_BYTES) {
        (true, true) => Some(Opening::IceTcp),
        (true, false) => None,
        (false, _) => Some(Opening::Unknown),
    }
}

/// What a connection turned out to be.
pub enum Opened {
    Http(Box<dyn Stream>),
    /// HTTP where only HTTPS is spoken.
    Unprotected(TcpStream),
    /// Nothing more to do for us.
    Over,
}

/// What HTTP can be spoken on.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Looks at what a client says first, without taking it, and does what comes before HTTP. `media` takes ICE-TCP.
///
/// May take for ever: give it [`OPENING_TIMEOUT`].
pub async fn open(stream: TcpStream, tls: Option<&Tls>, media: Option<&Shards>) -> io::Result<Opened> {
    if tls.is_none() && media.is_none() {
        return Ok(Opened::Http(Box::new(stream)));
    }
    match (first_bytes(&stream).await?, tls, media) {
        (Opening::Tls, Some(tls), _) => {
            let stream = tls.acceptor().accept(stream).await?;
            Ok(if is_challenge(&stream) { Opened::Over } else { Opened::Http(Box::new(stream)) })
        }
        (Opening::Http, Some(_), _) => Ok(Opened::Unprotected(stream)),
        (Opening::Http, None, _) => Ok(Opened::Http(Box::new(stream))),
        (Opening::IceTcp, _, Some(shards)) => {
            shards.take_connection(stream.into_std()?);
            Ok(Opened::Over)
        }
        _ => Ok(Opened::Over),
    }
}

/// An ACME server has seen all it wanted to when the handshake is over (RFC 8737 §3).
fn is_challenge(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(CHALLENGE)
}

#[expect(clippy::disallowed_methods, reason = "looks again at a client that says its first bytes one by one")]
async fn first_bytes(stream: &TcpStream) -> io::Result<Opening> {
    let mut bytes = [0; STUN_BYTES];
    loop {
        let count = stream.peek(&mut bytes).await?;
        match bytes.get(..count).and_then(recognise) {
            Some(opening) => return Ok(opening),
            // The peer has closed.
            None if count == 0 => return Ok(Opening::Unknown),
            // Only so much yet, or for ever.
            None => tokio::time::sleep(LOOK).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A binding request of `length` bytes, framed; only its beginning.
    fn stun(length: u16) -> Vec<u8> {
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend(BINDING_REQUEST);
        bytes.extend((length - 20).to_be_bytes());
        bytes.extend(MAGIC_COOKIE);
        bytes
    }

    #[test]
    fn first_bytes_tell_what_comes() {
        let (short, usual, longest) = (stun(20), stun(100), stun(2048));
        let (mut response, mut cookieless, mut other_length) = (stun(100), stun(100), stun(100));
        response[2] = 1;
        cookieless[9] = 0;
        other_length[5] += 4;
        let table: &[(&[u8], Option<Opening>)] = &[
            (b"", None),
            (&[0x16], None),
            (&[0x16, 0x03], Some(Opening::Tls)),
            (&[0x16, 0x03, 0x01, 0x02], Some(Opening::Tls)),
            // SSL 2 and DTLS.
            (&[0x80, 0x2e, 0x01], Some(Opening::Unknown)),
            (&[0x16, 0xfe, 0xfd], Some(Opening::Unknown)),
            (b"G", Some(Opening::Http)),
            (b"GET / HTTP/1.1", Some(Opening::Http)),
            (b"OPTIONS *", Some(Opening::Http)),
            (b"get /", Some(Opening::Unknown)),
            (b"\r\n", Some(Opening::Unknown)),
            (b"SSH-2.0-OpenSSH", Some(Opening::Http)),
            (&short, Some(Opening::IceTcp)),
            (&usual, Some(Opening::IceTcp)),
            (&longest, Some(Opening::IceTcp)),
            (&stun(2052), Some(Opening::Unknown)),
            (&response, Some(Opening::Unknown)),
            (&cookieless, Some(Opening::Unknown)),
            (&other_length, Some(Opening::Unknown)),
            // Too short for a header, or not of whole words.
            (&[0, 19], Some(Opening::Unknown)),
            (&[0, 21], Some(Opening::Unknown)),
            // DTLS and RTP in a frame, and zeros.
            (&[0, 100, 0x16, 0xfe], Some(Opening::Unknown)),
            (&[0, 100, 0x80, 0x60], Some(Opening::Unknown)),
            (&[0; 10], Some(Opening::Unknown)),
            (&[9], Some(Opening::Unknown)),
            (&[0xff; 10], Some(Opening::Unknown)),
        ];
        for (bytes, wanted) in table {
            assert_eq!(recognise(bytes), *wanted, "{bytes:02x?}");
        }
    }

    #[test]
    fn any_part_of_a_request_waits_for_the_rest() {
        let request = stun(100);
        for count in 0..request.len() {
            assert_eq!(recognise(&request[..count]), None, "{count} bytes");
        }
    }
}
