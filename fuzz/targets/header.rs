//! RTP header and header extensions: twelve ids, then a packet.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stube_fuzz::input::Input;
use stube_fuzz::rtp::extensions::{
    self, Extension, ExtensionIds, MAX_BLOCK_BYTES, MAX_DESCRIPTOR_BYTES, MAX_NAME_BYTES, Own, Received,
};
use stube_fuzz::rtp::header::{FIXED_BYTES, Fixed, Header, is_rtcp, padding_bytes};

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let mut ids = ExtensionIds::default();
    for extension in Extension::ALL {
        let Some(id) = input.u8() else { return };
        ids.set(extension, id);
    }
    let packet = input.0;
    if let Some(header) = Header::parse(packet) {
        check(packet, &header, &ids);
    }
});

fn check(packet: &[u8], header: &Header<'_>, ids: &ExtensionIds) {
    let payload = &packet[header.header_bytes..];
    assert!(header.extension.len() + FIXED_BYTES <= header.header_bytes);
    assert!(!is_rtcp(packet[1]) || (64..96).contains(&header.payload_type));
    assert!(padding_bytes(payload).is_none_or(|bytes| (1..=payload.len()).contains(&bytes)));

    let received = extensions::read(header, ids);
    let name = |name: Option<&'_ str>| name.is_none_or(|name| (1..256).contains(&name.len()));
    assert!(name(received.mid) && name(received.rid) && name(received.repaired_rid));
    rewrite(header, &received, ids);
}

/// What was read is written, and read again.
fn rewrite(header: &Header<'_>, received: &Received<'_>, ids: &ExtensionIds) {
    let fits = |name: &&str| name.len() <= MAX_NAME_BYTES;
    let mut expected = *received;
    expected.mid = received.mid.filter(fits);
    expected.rid = received.rid.filter(fits);
    expected.repaired_rid = received.repaired_rid.filter(fits);
    expected.dependency_descriptor = received.dependency_descriptor.filter(|bytes| bytes.len() <= MAX_DESCRIPTOR_BYTES);
    let own = Own {
        mid: expected.mid.map(str::as_bytes),
        rid: expected.rid.map(str::as_bytes),
        repaired_rid: expected.repaired_rid.map(str::as_bytes),
        transport_sequence_number: expected.transport_sequence_number,
        abs_send_time: expected.abs_send_time,
    };
    let mut out = [0xaa; FIXED_BYTES + MAX_BLOCK_BYTES];
    let (fixed, block) = out.split_first_chunk_mut().expect("room for both");
    let written = extensions::write(block, ids, &own, &expected.values, received.dependency_descriptor);
    assert!(written.is_multiple_of(4) && written <= MAX_BLOCK_BYTES);
    assert!(block[written..].iter().all(|byte| *byte == 0xaa), "nothing is written behind the block");
    for room in 0..written {
        let mut short = [0; MAX_BLOCK_BYTES];
        let values = &expected.values;
        assert_eq!(extensions::write(&mut short[..room], ids, &own, values, received.dependency_descriptor), 0);
    }
    let again = Fixed {
        payload_type: header.payload_type,
        marker: header.marker,
        sequence_number: header.sequence_number,
        timestamp: header.timestamp,
        ssrc: header.ssrc,
        padding: header.padding,
        extension: written > 0,
    };
    again.write(fixed);
    let read = Header::parse(&out[..FIXED_BYTES + written]).expect("what is written can be read");
    assert_eq!(read.header_bytes, FIXED_BYTES + written);
    assert_eq!((read.payload_type, read.marker, read.padding), (header.payload_type, header.marker, header.padding));
    assert_eq!((read.sequence_number, read.timestamp), (header.sequence_number, header.timestamp));
    assert_eq!(read.ssrc, header.ssrc);
    assert_eq!(extensions::read(&read, ids), expected);
}
