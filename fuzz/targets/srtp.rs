//! SRTP and SRTCP: what is sealed opens, and nothing else does.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use stube_fuzz::input::Input;
use stube_fuzz::rtp::header::Header;
use stube_fuzz::rtp::srtp::{KeyingMaterial, Opener, Profile, Sealer, SrtpError};

const PROFILES: [Profile; 3] = [Profile::AeadAes128Gcm, Profile::AeadAes256Gcm, Profile::Aes128CmSha1_80];

struct Ends {
    sealer: Sealer,
    opener: Opener,
}

fn ends(profile: Profile) -> Ends {
    let exported: Vec<u8> = (0..profile.keying_material_bytes() as u8).collect();
    let material = KeyingMaterial::new(profile, &exported).expect("the profile's length");
    let (sealer, _) = material.contexts(true).expect("keys");
    let (_, opener) = material.contexts(false).expect("keys");
    Ends { sealer, opener }
}

thread_local! {
    static ENDS: [RefCell<Ends>; 3] = PROFILES.map(|profile| RefCell::new(ends(profile)));
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let (Some(how), Some(at)) = (input.u8(), input.u16()) else { return };
    ENDS.with(|ends| {
        let ends = &mut *ends[usize::from(how) % 3].borrow_mut();
        match how / 3 % 4 {
            0 => forged(ends, input.0),
            1 => sealed_rtp(ends, at, input.0),
            2 => sealed_rtcp(ends, at, input.0),
            _ => odd_lengths(ends, at, input.0),
        }
    });
});

fn forged(ends: &mut Ends, packet: &[u8]) {
    let mut out = vec![1];
    assert!(ends.opener.open_rtcp(packet, &mut out).is_err() && out.is_empty());
    let Some(header) = Header::parse(packet) else { return };
    let index = u64::from(header.sequence_number);
    let one = ends.opener.open_rtp_into(header.ssrc, index, packet, header.header_bytes, &mut out);
    let two = ends.opener.open_rtp(header.ssrc, index, &mut packet.to_vec(), header.header_bytes);
    assert_eq!(one.expect_err("nobody has the key"), two.expect_err("nobody has the key"));
    assert!(out.is_empty());
}

fn sealed_rtp(ends: &Ends, at: u16, plain: &[u8]) {
    let Some(header) = Header::parse(plain) else { return };
    let (ssrc, index, bytes) =
        (header.ssrc, u64::from(at) << 16 | u64::from(header.sequence_number), header.header_bytes);
    let mut packet = plain.to_vec();
    packet.resize(plain.len() + ends.sealer.rtp_tag_bytes(), 0xaa);
    let mut in_place = packet.clone();
    ends.sealer.seal_rtp(ssrc, index, &mut packet, bytes, &plain[bytes..]).expect("sizes fit");
    ends.sealer.seal_rtp_in_place(ssrc, index, &mut in_place, bytes).expect("sizes fit");
    assert_eq!(packet, in_place);
    let mut out = Vec::new();
    ends.opener.open_rtp_into(ssrc, index, &packet, bytes, &mut out).expect("authentic");
    assert_eq!(out, plain[bytes..]);
    let length = ends.opener.open_rtp(ssrc, index, &mut in_place, bytes).expect("authentic");
    assert_eq!((length, &in_place[..plain.len()]), (out.len(), plain));
    let flipped = usize::from(at) % packet.len();
    packet[flipped] ^= 1 << (at % 8);
    let opened = ends.opener.open_rtp_into(ssrc, index, &packet, bytes, &mut out);
    assert_eq!(opened, Err(SrtpError::NotAuthentic));
    assert!(out.is_empty());
}

fn sealed_rtcp(ends: &mut Ends, at: u16, plain: &[u8]) {
    let mut packet = vec![0x55; usize::from(at % 7)];
    let start = packet.len();
    packet.extend_from_slice(plain);
    let sealed = ends.sealer.seal_rtcp(&mut packet, start);
    if plain.len() < 8 {
        assert_eq!(sealed, Err(SrtpError::TooShort));
        return;
    }
    sealed.expect("sizes fit");
    let packet = packet.split_off(start);
    let mut changed = packet.clone();
    let flipped = usize::from(at) % changed.len();
    changed[flipped] ^= 1 << (at % 8);
    let mut out = Vec::new();
    assert!(ends.opener.open_rtcp(&changed, &mut out).is_err() && out.is_empty());
    ends.opener.open_rtcp(&packet, &mut out).expect("authentic");
    assert_eq!(out, plain);
    assert_eq!(ends.opener.open_rtcp(&packet, &mut out), Err(SrtpError::Replayed));
}

/// Lengths that do not belong together are errors, not panics.
fn odd_lengths(ends: &Ends, at: u16, packet: &[u8]) {
    let (header_bytes, index) = (usize::from(at), u64::from(at) << 33);
    let mut packet = packet.to_vec();
    let mut out = Vec::new();
    assert!(ends.opener.open_rtp_into(1, index, &packet, header_bytes, &mut out).is_err());
    assert!(ends.opener.open_rtp(1, index, &mut packet, header_bytes).is_err());
    let payload = packet.get(header_bytes..).unwrap_or_default().to_vec();
    assert!(ends.sealer.seal_rtp(1, index, &mut packet, header_bytes, &payload).is_err(), "no room for the tag");
    let _ = ends.sealer.seal_rtp_in_place(1, index, &mut packet, header_bytes);
}
