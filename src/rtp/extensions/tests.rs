//! Header extensions, byte by byte and there and back.

use super::*;
use crate::ids::IdSource;

fn header(extension_profile: u16, extension: &[u8]) -> Header<'_> {
    Header {
        payload_type: 96,
        marker: false,
        sequence_number: 1,
        timestamp: 2,
        ssrc: 3,
        padding: false,
        header_bytes: 16 + extension.len(),
        extension_profile,
        extension,
    }
}

fn numbered() -> ExtensionIds {
    let mut ids = ExtensionIds::default();
    for (extension, id) in Extension::ALL.into_iter().zip(1..) {
        ids.set(extension, id);
    }
    ids
}

/// Reads back what [`write`] wrote.
fn read_block<'a>(block: &'a [u8], ids: &ExtensionIds) -> Received<'a> {
    assert_eq!(usize::from(u16_at(block, 2).unwrap()) * 4 + 4, block.len());
    read(&header(u16_at(block, 0).unwrap(), &block[4..]), ids)
}

fn everything() -> Values {
    Values {
        audio_level: Some(0x9e),
        video_orientation: Some(3),
        video_content_type: Some(1),
        playout_delay: Some([1, 2, 3]),
        abs_capture_time: Some((u64::MAX - 5, Some(-7))),
    }
}

#[test]
fn uris_and_ids_lead_both_ways() {
    for extension in Extension::ALL {
        assert_eq!(Extension::from_uri(extension.uri()), Some(extension));
    }
    assert_eq!(Extension::from_uri("urn:ietf:params:rtp-hdrext:toffset"), None);
    let mut ids = ExtensionIds::default();
    for id in 0..=255 {
        assert_eq!(ids.of(id), None);
    }
    ids.set(Extension::Mid, 4);
    ids.set(Extension::DependencyDescriptor, 200);
    assert_eq!((ids.of(4), ids.of(200)), (Some(Extension::Mid), Some(Extension::DependencyDescriptor)));
    ids.set(Extension::Rid, 4);
    assert_eq!((ids.of(4), ids.id(Extension::Mid)), (Some(Extension::Rid), None), "an id means one thing");
    ids.set(Extension::Rid, 15);
    assert_eq!((ids.of(4), ids.of(15)), (None, Some(Extension::Rid)));
    ids.set(Extension::Rid, 0);
    assert_eq!((ids.of(15), ids.of(0), ids.id(Extension::Rid)), (None, None, None));
}

#[test]
fn the_one_byte_form_is_read() {
    let ids = numbered();
    // mid "ab", filling, transport number, an unknown id, level; id 15 hides the rest (RFC 8285 §4.2).
    let block = [0x11, b'a', b'b', 0, 0x41, 0x12, 0x34, 0xe0, 9, 0x60, 0x85, 0xf0, 0x20, b'h'];
    let received = read(&header(0xbede, &block), &ids);
    assert_eq!((received.mid, received.rid), (Some("ab"), None));
    assert_eq!(received.transport_sequence_number, Some(0x1234));
    assert_eq!(received.values.audio_level, Some(0x85));
    let zero_with_length = [0x10, b'a', 0x01, 0x20, b'h'];
    let received = read(&header(0xbede, &zero_with_length), &ids);
    assert_eq!((received.mid, received.rid), (Some("a"), None), "filling with a length ends the block");
    let cut = [0x10, b'a', 0x23, b'h'];
    assert_eq!(read(&header(0xbede, &cut), &ids).rid, None);
    assert_eq!(read(&header(0xbedf, &block), &ids), Received::default(), "another profile");
}

#[test]
fn the_two_byte_form_is_read() {
    let mut ids = numbered();
    ids.set(Extension::RepairedRid, 77);
    let block = [5, 3, 0xab, 0xcd, 0xef, 0, 0, 1, 0, 77, 2, b'r', b'0', 15, 1, 9, 7, 1, 2, 2, 9];
    for profile in [0x1000, 0x100f] {
        let received = read(&header(profile, &block), &ids);
        assert_eq!((received.abs_send_time, received.mid), (Some(0x00ab_cdef), None), "an empty mid is none");
        assert_eq!((received.repaired_rid, received.values.video_orientation), (Some("r0"), Some(2)));
    }
    assert_eq!(read(&header(0x1010, &block), &ids), Received::default());
}

#[test]
fn elements_too_short_for_their_meaning_are_passed_over() {
    let ids = numbered();
    let block = [0x40, 1, 0x51, 1, 2, 0x86, 1, 2, 3, 4, 5, 6, 7, 0x91, 1, 2, 0x11, 0xff, 0xfe];
    assert_eq!(read(&header(0xbede, &block), &ids), Received::default());
}

#[test]
fn a_block_is_written_byte_by_byte() {
    let ids = numbered();
    let own = Own { mid: Some(b"0"), transport_sequence_number: Some(0x0102), ..Own::default() };
    let values = Values { audio_level: Some(0xff), ..Values::default() };
    let mut out = [0xaa; 16];
    let length = write(&mut out, &ids, &own, &values, None);
    assert_eq!(out[..length], [0xbe, 0xde, 0, 2, 0x10, b'0', 0x41, 1, 2, 0x60, 0xff, 0]);
    assert_eq!(out[length], 0xaa, "nothing behind it is touched");
    assert_eq!(write(&mut out[..length - 1], &ids, &own, &values, None), 0, "no room");
    let mut far = ids;
    far.set(Extension::AudioLevel, 15);
    let length = write(&mut out, &far, &own, &values, None);
    assert_eq!(out[..length], [0x10, 0, 0, 3, 1, 1, b'0', 4, 2, 1, 2, 15, 1, 0xff, 0, 0]);
}

#[test]
fn nothing_to_say_or_nobody_to_understand_writes_no_block() {
    let mut out = [0; MAX_BLOCK_BYTES];
    assert_eq!(write(&mut out, &numbered(), &Own::default(), &Values::default(), None), 0);
    let own = Own { mid: Some(b"0"), ..Own::default() };
    assert_eq!(write(&mut out, &ExtensionIds::default(), &own, &everything(), Some(&[1])), 0);
    let long = Own { mid: Some(&[b'x'; 17]), rid: Some(b""), ..Own::default() };
    let descriptor = [1; MAX_DESCRIPTOR_BYTES + 1];
    assert_eq!(write(&mut out, &numbered(), &long, &Values::default(), Some(&descriptor)), 0);
}

#[test]
fn everything_at_once_fits_and_reads_back() {
    let ids = numbered();
    let name = "abcdefghijklmnop";
    let own = Own {
        mid: Some(name.as_bytes()),
        rid: Some(name.as_bytes()),
        repaired_rid: Some(name.as_bytes()),
        transport_sequence_number: Some(0xffff),
        abs_send_time: Some(0x00ff_ffff),
    };
    let descriptor = [7; MAX_DESCRIPTOR_BYTES];
    let mut out = [0; MAX_BLOCK_BYTES];
    let length = write(&mut out, &ids, &own, &everything(), Some(&descriptor));
    assert_eq!(length, MAX_BLOCK_BYTES);
    let received = read_block(&out[..length], &ids);
    assert_eq!((received.mid, received.rid, received.repaired_rid), (Some(name), Some(name), Some(name)));
    assert_eq!((received.transport_sequence_number, received.abs_send_time), (Some(0xffff), Some(0x00ff_ffff)));
    assert_eq!(received.values, everything());
    assert_eq!(received.dependency_descriptor, Some(&descriptor[..]));
}

#[test]
fn a_descriptor_of_40_bytes_forces_the_two_byte_form() {
    let ids = numbered();
    let own = Own { mid: Some(b"3"), ..Own::default() };
    let mut out = [0; MAX_BLOCK_BYTES];
    for (bytes, profile) in [(3, 0xbede), (16, 0xbede), (17, 0x1000), (40, 0x1000)] {
        let descriptor = vec![5; bytes];
        let length = write(&mut out, &ids, &own, &everything(), Some(&descriptor));
        assert_eq!(u16_at(&out, 0), Some(profile), "{bytes}");
        let received = read_block(&out[..length], &ids);
        assert_eq!((received.dependency_descriptor, received.mid), (Some(&descriptor[..]), Some("3")));
        assert_eq!(received.values, everything());
    }
}

#[test]
fn send_time_is_6_18_fixed_point() {
    assert_eq!(abs_send_time(Duration::from_millis(500)), 1 << 17);
    assert_eq!(abs_send_time(Duration::from_secs(1)), 1 << 18);
    assert_eq!(abs_send_time(Duration::from_secs(64 * 1000 + 63)), 63 << 18);
    assert_eq!(abs_send_time(Duration::from_nanos(63_999_999_999)), 0x00ff_ffff);
    assert_eq!(abs_send_time(Duration::MAX) >> 24, 0);
}

#[test]
fn random_values_read_back_under_random_ids() {
    let mut rng = IdSource::from_seed([2; 32]);
    let mut out = [0; MAX_BLOCK_BYTES];
    let descriptor = [9; MAX_DESCRIPTOR_BYTES];
    for _ in 0..20_000 {
        let mut ids = ExtensionIds::default();
        let span = if rng.bits().is_multiple_of(2) { 14 } else { 255 };
        for extension in Extension::ALL {
            ids.set(extension, (rng.bits() % span + 1) as u8);
        }
        let bits = rng.bits();
        let with = |bit: u32| bits & (1 << bit) != 0;
        let values = Values {
            audio_level: with(0).then_some(bits as u8),
            video_orientation: with(1).then_some(1),
            video_content_type: with(2).then_some(2),
            playout_delay: with(3).then_some([bits as u8, 0, 1]),
            abs_capture_time: with(4).then_some((u64::from(bits), with(5).then_some(-1))),
        };
        let own = Own {
            mid: with(6).then_some(b"mid"),
            transport_sequence_number: with(7).then_some(bits as u16),
            abs_send_time: with(8).then_some(bits >> 8),
            ..Own::default()
        };
        let descriptor = with(9).then_some(&descriptor[..1 + (bits >> 10) as usize % 100]);
        let length = write(&mut out, &ids, &own, &values, descriptor);
        if length == 0 {
            continue;
        }
        let received = read_block(&out[..length], &ids);
        let known = |extension| ids.id(extension).is_some();
        assert_eq!(received.mid, own.mid.filter(|_| known(Extension::Mid)).map(|_| "mid"));
        assert_eq!(received.abs_send_time, own.abs_send_time.filter(|_| known(Extension::AbsSendTime)));
        assert_eq!(received.dependency_descriptor, descriptor.filter(|_| known(Extension::DependencyDescriptor)));
        let capture = values.abs_capture_time.filter(|_| known(Extension::AbsCaptureTime));
        assert_eq!(received.values.abs_capture_time, capture);
        assert_eq!(received.values.audio_level, values.audio_level.filter(|_| known(Extension::AudioLevel)));
    }
}

#[test]
fn no_bytes_make_it_panic() {
    let mut rng = IdSource::from_seed([3; 32]);
    let ids = numbered();
    let mut block = [0u8; 64];
    for round in 0..100_000 {
        block.iter_mut().for_each(|byte| *byte = rng.bits() as u8);
        let length = rng.bits() as usize % 65;
        let profile = [0xbede, 0x1000 | (rng.bits() as u16 & 0xf)][round % 2];
        let received = read(&header(profile, &block[..length]), &ids);
        assert!(received.mid.is_none_or(|mid| !mid.is_empty()));
    }
}
