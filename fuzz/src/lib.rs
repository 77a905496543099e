//! The server's rings 0 to 2, compiled by path: what reads bytes from the network, without what a server needs besides.

#[path = "../../src/ids.rs"]
pub mod ids;
#[path = "../../src/units.rs"]
pub mod units;
#[path = "../../src/command/mod.rs"]
pub mod command;
#[path = "../../src/media/mod.rs"]
pub mod media;
#[path = "../../src/rtp/mod.rs"]
pub mod rtp;
#[path = "../../src/rtc/mod.rs"]
pub mod rtc;

pub mod input;
pub mod session;
