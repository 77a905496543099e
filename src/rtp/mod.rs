//! RTP on the wire: headers, SRTP, RTCP. Pure: bytes in, bytes out; no str0m, no clock, no socket.

mod octets;
pub mod header;
pub mod extensions;
pub mod rtcp;
pub mod feedback;
pub mod reception;
pub mod nack;
pub mod numbers;
pub mod srtp;
