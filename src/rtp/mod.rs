//! RTP on the wire: headers, SRTP, RTCP. Pure: bytes in, bytes out; no str0m, no clock, no socket.

pub mod srtp;
