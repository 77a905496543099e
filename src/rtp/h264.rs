//! The size of an H.264 picture, out of the sequence parameter set that comes with each keyframe (ITU-T H.264, 7.3.2.1.1).
//!
//! Nothing else in a packet says it (RFC 6184), and without it an encoding's height could only be guessed.

use super::bits::{BitReader, TooShort};
use super::octets::u16_at;

/// NAL unit types (H.264, table 7-1; RFC 6184, table 1).
const TYPE_MASK: u8 = 0x1f;
const SPS: u8 = 7;
const STAP_A: u8 = 24;
/// Profiles that say more of their samples (H.264, 7.3.2.1.1).
const HIGH_PROFILES: [u32; 13] = [100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135];
/// chroma_format_idc: 4:2:0 unless a profile says otherwise, and 4:4:4.
const CHROMA_420: u32 = 1;
const CHROMA_444: u32 = 3;
/// Macroblocks are so wide and high.
const MACROBLOCK: u32 = 16;
/// Of a parameter set no more is looked at; the size comes before the usability information, which is the long part.
const MAX_BYTES: usize = 256;

/// Width and height, if the payload has a parameter set in it.
pub fn size(payload: &[u8]) -> Option<(u16, u16)> {
    let kind = payload.first()? & TYPE_MASK;
    match kind {
        SPS => size_of(payload.get(1..)?),
        STAP_A => {
            let mut rest = payload.get(1..)?;
            while let Some(length) = u16_at(rest, 0) {
                let (unit, after) = rest.get(2..)?.split_at_checked(length.into())?;
                match unit.split_first() {
                    Some((header, set)) if header & TYPE_MASK == SPS => return size_of(set),
                    _ => rest = after,
                }
            }
            None
        }
        _ => None,
    }
}

/// Of a parameter set behind its header.
fn size_of(set: &[u8]) -> Option<(u16, u16)> {
    let mut bytes = [0; MAX_BYTES];
    let length = without_emulation(set, &mut bytes);
    let (width, height) = read(&mut BitReader::new(bytes.get(..length)?, 0)).ok()??;
    let (width, height) = (u16::try_from(width).ok()?, u16::try_from(height).ok()?);
    (width > 0 && height > 0).then_some((width, height))
}

/// Drops the 3 of each 0 0 3, put there so that no start code appears (H.264, 7.4.1). How many bytes it left.
fn without_emulation(set: &[u8], out: &mut [u8; MAX_BYTES]) -> usize {
    let (mut length, mut zeros) = (0, 0);
    for byte in set {
        if zeros >= 2 && *byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if *byte == 0 { zeros + 1 } else { 0 };
        let Some(place) = out.get_mut(length) else { break };
        *place = *byte;
        length += 1;
    }
    length
}

/// seq_parameter_set_data() up to the size; `None` if it is beyond all measure.
fn read(bits: &mut BitReader<'_>) -> Result<Option<(u32, u32)>, TooShort> {
    let profile = bits.take(8)?;
    // Constraints and level; then the set's id.
    bits.take(16)?;
    bits.exp_golomb()?;
    let chroma = if HIGH_PROFILES.contains(&profile) { read_samples(bits)? } else { CHROMA_420 };
    // log2_max_frame_num_minus4
    bits.exp_golomb()?;
    skip_picture_order(bits)?;
    // max_num_ref_frames, gaps_in_frame_num_value_allowed_flag
    bits.exp_golomb()?;
    bits.flag()?;
    let (columns, rows) = (bits.exp_golomb()?, bits.exp_golomb()?);
    let frames_only = bits.flag()?;
    if !frames_only {
        // mb_adaptive_frame_field_flag
        bits.flag()?;
    }
    // direct_8x8_inference_flag, frame_cropping_flag
    bits.flag()?;
    let mut crop = [0; 4];
    if bits.flag()? {
        for side in &mut crop {
            *side = bits.exp_golomb()?;
        }
    }
    // Cropped by samples of the chroma, and by two lines where there are fields (equations 7-19 to 7-22).
    let fields = if frames_only { 1 } else { 2 };
    let (across, down) = match chroma {
        0 | CHROMA_444 => (1, 1),
        CHROMA_420 => (2, 2),
        _ => (2, 1),
    };
    let extent = |blocks: u32, times: u32, unit: u32, [before, after]: [u32; 2]| {
        let cut = before.checked_add(after)?.checked_mul(unit)?;
        blocks.checked_add(1)?.checked_mul(MACROBLOCK * times)?.checked_sub(cut)
    };
    let [left, right, top, bottom] = crop;
    Ok(extent(columns, 1, across, [left, right]).zip(extent(rows, fields, down * fields, [top, bottom])))
}

/// What high profiles say of their samples: chroma_format_idc, where separate planes count as none.
fn read_samples(bits: &mut BitReader<'_>) -> Result<u32, TooShort> {
    let chroma = bits.exp_golomb()?;
    let separate = chroma == CHROMA_444 && bits.flag()?;
    // bit_depth_luma_minus8, bit_depth_chroma_minus8, qpprime_y_zero_transform_bypass_flag
    bits.exp_golomb()?;
    bits.exp_golomb()?;
    bits.flag()?;
    if bits.flag()? {
        for list in 0..if chroma == CHROMA_444 { 12 } else { 8 } {
            if bits.flag()? {
                skip_scaling(bits, if list < 6 { 16 } else { 64 })?;
            }
        }
    }
    Ok(if separate { 0 } else { chroma })
}

/// scaling_list() (7.3.2.1.1.1).
fn skip_scaling(bits: &mut BitReader<'_>, entries: usize) -> Result<(), TooShort> {
    let (mut last, mut next) = (8_i64, 8_i64);
    for _ in 0..entries {
        if next != 0 {
            next = (last + signed(bits.exp_golomb()?)).rem_euclid(256);
        }
        last = if next == 0 { last } else { next };
    }
    Ok(())
}

/// se(v) (9.1.1).
fn signed(code: u32) -> i64 {
    let half = i64::from(code.div_ceil(2));
    if code.is_multiple_of(2) { -half } else { half }
}

fn skip_picture_order(bits: &mut BitReader<'_>) -> Result<(), TooShort> {
    match bits.exp_golomb()? {
        // log2_max_pic_order_cnt_lsb_minus4
        0 => {
            bits.exp_golomb()?;
        }
        1 => {
            // delta_pic_order_always_zero_flag, two offsets, and one for each frame of the cycle.
            bits.flag()?;
            bits.exp_golomb()?;
            bits.exp_golomb()?;
            for _ in 0..bits.exp_golomb()? {
                bits.exp_golomb()?;
            }
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fields as bits, spaces for reading, into a parameter set; then the STAP-A with a PPS before it.
    fn set(fields: &str) -> Vec<u8> {
        let bits: Vec<u8> = fields.bytes().filter(|bit| *bit != b' ').map(|bit| bit - b'0').collect();
        let byte = |bits: &[u8]| bits.iter().enumerate().fold(0, |byte, (at, bit)| byte | bit << (7 - at));
        [0x67].into_iter().chain(bits.chunks(8).map(byte)).collect()
    }

    /// ue(v), as bits.
    fn ue(value: u32) -> String {
        let code = format!("{:b}", value + 1);
        "0".repeat(code.len() - 1) + &code
    }

    const BASELINE: &str = "01000010 11100000 00011111";
    const HIGH: &str = "01100100 00000000 00011111";

    #[test]
    fn the_sizes_of_browsers_pictures_are_read() {
        // Constrained baseline, id 0, frame numbers of 4 bits, order type 2, one reference, no gaps, then the size.
        let baseline = |columns: u32, rows: u32, crop: &str| {
            format!("{BASELINE} 1 1 {} {} 0 {}{} 1 1 {crop} 0 1", ue(2), ue(1), ue(columns - 1), ue(rows - 1))
        };
        // High, 4:2:0 of eight bits; order type 0 with four bits; fields.
        let high = format!("{HIGH} 1 {} 1 1 0 0 1 1 1 {} 0 {}{} 0 0 1 0 0 1", ue(1), ue(4), ue(119), ue(33));
        for (fields, expected) in [
            (baseline(40, 23, &format!("1 1 1 1 {}", ue(4))), (640, 360)),
            (baseline(80, 45, "0"), (1280, 720)),
            (baseline(20, 12, &format!("1 1 1 1 {}", ue(6))), (320, 180)),
            (baseline(20, 12, &format!("1 {} {} 1 1", ue(2), ue(3))), (310, 192)),
            (high, (1920, 1088)),
        ] {
            assert_eq!(size(&set(&fields)), Some(expected), "{fields}");
        }
    }

    #[test]
    fn scaling_lists_and_orders_by_cycle_are_skipped() {
        // The first list has 16 times no change; the second ends at once, for 8 - 8 is 0.
        let lists = format!("1 1 {} 1 {} 000000", "1".repeat(16), ue(16));
        let high = format!("{HIGH} 1 {} 1 1 0 {lists} 1 {} 0 1 1 {} {} {} 1 0", ue(1), ue(1), ue(2), ue(3), ue(4));
        let fields = format!("{high}{}{} 1 1 0 0 1", ue(79), ue(44));
        assert_eq!(size(&set(&fields)), Some((1280, 720)));
    }

    #[test]
    fn it_is_found_in_an_aggregate_and_despite_emulation() {
        let fields = format!("{BASELINE} 1 1 {} {} 0 {}{} 1 1 0 0 1", ue(2), ue(1), ue(79), ue(44));
        let set = set(&fields);
        let length = set.len() as u8;
        let stap = [&[0x78, 0, 2, 0x68, 0xce, 0, length][..], &set, &[0, 3, 0x65, 1, 2]].concat();
        assert_eq!(size(&stap), Some((1280, 720)));
        for end in 0..stap.len() {
            let _ = size(&stap[..end]);
        }
        // An IDR slice alone, and a set of another size in which 0 0 3 0 stands for 0 0 0.
        assert_eq!(size(&[0x65, 1, 2, 3]), None);
        let mut bytes = [0; MAX_BYTES];
        assert_eq!(without_emulation(&[1, 0, 0, 3, 0, 0, 3, 1, 0, 0, 0, 3], &mut bytes), 9);
        assert_eq!(bytes[..9], [1, 0, 0, 0, 0, 1, 0, 0, 0]);
    }

    #[test]
    fn nonsense_has_no_size() {
        assert_eq!(size(&[]), None);
        assert_eq!(size(&[0x67; 400]), size(&[0x67; 300]));
        let cropped_away = format!("{BASELINE} 1 1 {} {} 0 1 1 1 1 1 {} 1 1 1 0 1", ue(2), ue(1), ue(40));
        assert_eq!(size(&set(&cropped_away)), None);
        let huge = format!("{BASELINE} 1 1 {} {} 0 {}{} 1 1 0 0 1", ue(2), ue(1), ue(4_294_967_293), ue(44));
        assert_eq!(size(&set(&huge)), None);
    }
}
