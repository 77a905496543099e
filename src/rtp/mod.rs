//! RTP on the wire: headers, SRTP, RTCP, payload descriptors. Pure: bytes in, bytes out; no str0m, no clock, no socket.

mod octets;
mod bits;
pub mod header;
pub mod dependency;
pub mod vp8;
pub mod vp9;
pub mod h264;
pub mod red;
pub mod extensions;
pub mod rtcp;
pub mod feedback;
pub mod reception;
pub mod nack;
pub mod numbers;
pub mod srtp;
