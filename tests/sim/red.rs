//! Redundant audio in the simulation: who offers it, which frames are sent so, and that each arrives as it should.

use stube::rtp::red;

use crate::stamp::Stamp;

/// Every other client offers RED, and sends most frames so: of each sixteen all but some.
pub fn is_offered_by(client: usize) -> bool {
    !client.is_multiple_of(2)
}

/// Whether a frame is sent as RED, if its sender may.
pub fn is_sent(frame: u32) -> bool {
    frame % 16 < 11
}

/// A payload behind a redundant block, which is as good as any: nobody decodes it.
pub fn wrap(primary: &[u8], payload_type: u8) -> Vec<u8> {
    // The frame before, 960 units ago, of 20 bytes.
    let mut payload = vec![0x80 | payload_type, 0x0f, 0x00, 20, payload_type];
    payload.extend_from_slice(&[0xaa; 20]);
    payload.extend_from_slice(primary);
    payload
}

/// Reads audio that came as RED or not, for a receiver that has offered RED or not.
pub fn read(payload: &[u8], is_red: bool, offered: bool) -> Result<Stamp, &'static str> {
    let primary = match is_red {
        true => red::primary(payload).and_then(|primary| payload.get(primary.offset..)),
        false => Some(payload),
    };
    let stamp = Stamp::parse_opus(primary.ok_or("RED without a primary block")?)?;
    let expected = offered && is_offered_by(stamp.track.client) && is_sent(stamp.frame);
    if is_red == expected { Ok(stamp) } else { Err("RED where there should be none, or the other way round") }
}
