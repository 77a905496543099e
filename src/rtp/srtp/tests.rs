//! Known answers, round trips, forgeries and bad lengths of SRTP and SRTCP.

use super::cipher::CM_SALT_BYTES;
use super::kdf::{apply_keystream, counter_mode_key};
use super::*;

const PROFILES: [Profile; 3] = [Profile::AeadAes128Gcm, Profile::AeadAes256Gcm, Profile::Aes128CmSha1_80];
const SSRC: u32 = 0x1122_3344;
const HEADER_BYTES: usize = 16;

fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u32> = digits.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

/// Both ends of a connection: the client's, then the server's.
fn pair(profile: Profile) -> ((Sealer, Opener), (Sealer, Opener)) {
    let exported: Vec<u8> = (0..profile.keying_material_bytes() as u8).collect();
    let material = KeyingMaterial::new(profile, &exported).unwrap();
    (material.contexts(true).unwrap(), material.contexts(false).unwrap())
}

/// A header with a contributor, so that it is longer than the fixed part.
fn header(seq: u16) -> [u8; HEADER_BYTES] {
    let mut header = [0x55; HEADER_BYTES];
    header[..2].copy_from_slice(&[0x81, 96]);
    header[2..4].copy_from_slice(&seq.to_be_bytes());
    header[8..12].copy_from_slice(&SSRC.to_be_bytes());
    header
}

fn seal(sealer: &Sealer, index: u64, payload: &[u8]) -> Vec<u8> {
    let mut packet = header(index as u16).to_vec();
    packet.resize(HEADER_BYTES + payload.len() + sealer.rtp_tag_bytes(), 0);
    sealer.seal_rtp(SSRC, index, &mut packet, HEADER_BYTES, payload).unwrap();
    packet
}

// ---- known answers ---------------------------------------------------------------------------------------------------

/// RFC 3711 appendix B.2.
#[test]
fn keystream_of_rfc_3711() {
    let key = counter_mode_key(&hex("2B7E151628AED2A6ABF7158809CF4F3C")).unwrap();
    let start: [u8; CM_SALT_BYTES] = hex("F0F1F2F3F4F5F6F7F8F9FAFBFCFD").try_into().unwrap();
    let mut stream = vec![0; 0xFF02 * 16];
    apply_keystream(&key, &start, &mut stream).unwrap();
    let expected = "E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB 41E95B3BB0A2E8DD477901E4FCA894C0";
    assert_eq!(stream[..48], hex(expected));
    let expected = "EC8CDF7398607CB0F2D21675EA9EA1E4 362B7C3C6773516318A077D7FC5073AE 6A2CC3787889374FBEB4C81B17BA6C44";
    assert_eq!(stream[0xFEFF * 16..], hex(expected));
}

/// RFC 3711 appendix B.3.
#[test]
fn key_derivation_of_rfc_3711() {
    let kdf = Kdf::new(&hex("E1F97A0D3E018BE0D64FA32C06DE4139"), &hex("0EC675AD498AFEEBB6960B3AABE6")).unwrap();
    assert_eq!(kdf.derive(0, 16).unwrap(), hex("C61E7A93744F39EE10734AFE3FF7A087"));
    assert_eq!(kdf.derive(2, 14).unwrap(), hex("30CBBC08863D8C85D49DB34A9AE1"));
    let authentication = "CEBE321F6FF7716B6FD4AB49AF256A15 6D38BAA48F0A0ACF3C34E2359E6CDBCE
        E049646C43D9327AD175578EF7227098 6371C10C9A369AC2F94A8C5FBCDDDC25
        6D6E919A48B610EF17C2041E47403576 6B68642C59BBFC2F34DB60DBDFB2DC68";
    assert_eq!(kdf.derive(1, 96).unwrap(), hex(authentication));
}

/// RFC 6188 §7.2.
#[test]
fn key_derivation_of_rfc_6188() {
    let key = hex("f0f04914b513f2763a1b1fa130f10e29 98f6f6e43e4309d1e622a0e332b9f1b6");
    let kdf = Kdf::new(&key, &hex("3b04803de51ee7c96423ab5b78d2")).unwrap();
    let session_key = hex("5ba1064e30ec51613cad926c5a28ef73 1ec7fb397f70a960653caf06554cd8c4");
    assert_eq!(kdf.derive(0, 32).unwrap(), session_key);
    assert_eq!(kdf.derive(2, 14).unwrap(), hex("fa31791685ca444a9e07c6c64e93"));
    assert_eq!(kdf.derive(1, 20).unwrap(), hex("fd9c32d39ed5fbb5a9dc96b30818454d1313dc05"));
}

/// Contexts whose session keys are those of RFC 7714 §16 and §17.
fn rfc_7714(profile: Profile) -> (Sealer, Opener) {
    let key: Vec<u8> = (0..profile.key_bytes() as u8).collect();
    let cipher = || Cipher::new(profile, &key, &hex("517569642070726f2071756f"), &[]).unwrap();
    let sealer = Sealer { profile, rtp: cipher(), rtcp: cipher(), next_rtcp_index: 0x5D4 };
    let opener = Opener { profile, rtp: cipher(), rtcp: cipher(), rtcp_windows: RtcpWindows::default() };
    (sealer, opener)
}

fn check_rtp(sealer: &Sealer, opener: &Opener, ssrc: u32, index: u64, plain: &[u8], sealed: &[u8]) {
    let mut packet = plain.to_vec();
    packet.resize(sealed.len(), 0);
    sealer.seal_rtp_in_place(ssrc, index, &mut packet, RTP_HEADER_BYTES).unwrap();
    assert_eq!(packet, sealed);
    packet[RTP_HEADER_BYTES..].fill(0);
    sealer.seal_rtp(ssrc, index, &mut packet, RTP_HEADER_BYTES, &plain[RTP_HEADER_BYTES..]).unwrap();
    assert_eq!(packet, sealed);
    let mut out = vec![1; 7];
    opener.open_rtp_into(ssrc, index, sealed, RTP_HEADER_BYTES, &mut out).unwrap();
    assert_eq!(out, plain[RTP_HEADER_BYTES..]);
    let bytes = opener.open_rtp(ssrc, index, &mut packet, RTP_HEADER_BYTES).unwrap();
    assert_eq!(packet[..RTP_HEADER_BYTES + bytes], *plain);
}

fn check_rtcp(sealer: &mut Sealer, opener: &mut Opener, plain: &[u8], sealed: &[u8]) {
    let mut buffer = [b"before", plain].concat();
    sealer.seal_rtcp(&mut buffer, 6).unwrap();
    assert_eq!(buffer, [b"before", sealed].concat());
    let mut out = vec![1; 7];
    opener.open_rtcp(sealed, &mut out).unwrap();
    assert_eq!(out, plain);
}

/// RFC 7714 §16.1.1 and §16.2.1.
#[test]
fn rtp_of_rfc_7714() {
    let plain = hex("8040f17b 8041f8d3 5501a0b2 47616c6c 69612065 7374206f 6d6e6973 20646976 69736120 696e2070
        61727465 73207472 6573");
    let sealed_128 = "8040f17b 8041f8d3 5501a0b2 f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5 0d294e6f 42a5f47a
        51c7d19b 36de3adf 8833899d 7f27beb1 6a9152cf 765ee439 0cce";
    let sealed_256 = "8040f17b 8041f8d3 5501a0b2 32b1de78 a822fe12 ef9f78fa 332e33aa b1801238 9a58e2f3 b50b2a02
        76ffae0f 1ba63799 b87b7aa3 db36dfff d6b0f9bb 7878d7a7 6c13";
    for (profile, sealed) in [(Profile::AeadAes128Gcm, sealed_128), (Profile::AeadAes256Gcm, sealed_256)] {
        let (sealer, opener) = rfc_7714(profile);
        check_rtp(&sealer, &opener, 0x5501_A0B2, 0xF17B, &plain, &hex(sealed));
    }
}

/// RFC 7714 §17.1 and §17.2.
#[test]
fn rtcp_of_rfc_7714() {
    let plain = hex("81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61 deadbeef deadbeef
        deadbeef deadbeef deadbeef");
    let sealed_128 = "81c8000d 4d617273 63e94885 dcdab67c a727d766 2f6b7e99 7ff5c0f7 6c06f32d c676a5f1 730d6fda
        4ce09b46 86303ded 0bb9275b c84aa458 96cf4d2f c5abf872 45d9eade 800005d4";
    let sealed_256 = "81c8000d 4d617273 d50ae4d1 f5ce5d30 4ba297e4 7d470c28 2c3ece5d bffe0a50 a2eaa5c1 110555be
        8415f658 c61de047 6f1b6fad 1d1eb30c 4446839f 57ff6f6c b26ac3be 800005d4";
    for (profile, sealed) in [(Profile::AeadAes128Gcm, sealed_128), (Profile::AeadAes256Gcm, sealed_256)] {
        let (mut sealer, mut opener) = rfc_7714(profile);
        check_rtcp(&mut sealer, &mut opener, &plain, &hex(sealed));
    }
}

/// The reference packet of libsrtp's `srtp_validate`.
#[test]
fn packet_of_libsrtp() {
    let master = hex("e1f97a0d3e018be0d64fa32c06de4139 e1f97a0d3e018be0d64fa32c06de4139
        0ec675ad498afeebb6960b3aabe6 0ec675ad498afeebb6960b3aabe6");
    let material = KeyingMaterial::new(Profile::Aes128CmSha1_80, &master).unwrap();
    let (sealer, opener) = material.contexts(true).unwrap();
    let plain = [hex("800f1234 decafbad cafebabe"), vec![0xAB; 16]].concat();
    let sealed = hex("800f1234 decafbad cafebabe 4e55dc4c e79978d8 8ca4d215 949d2402 b78d6acc 99ea179b 8dbb");
    check_rtp(&sealer, &opener, 0xCAFE_BABE, 0x1234, &plain, &sealed);
}

/// Both directions from exported keys 0, 1, 2… on, at rollover count 5 and SRTCP index 0; the answers were computed with
/// Python's `cryptography`. It shows which keys are whose and how GCM's salt is padded.
#[test]
fn packets_from_exported_keys() {
    let (ssrc, index) = (0x1122_3344, 5 << 16 | 0xFFFF);
    let rtp = [hex("8060ffff0000000711223344"), b"stube".to_vec()].concat();
    let rtcp = [hex("81c9000111223344"), b"feedback".to_vec()].concat();
    let cases = [
        (
            Profile::AeadAes128Gcm,
            true,
            "8060ffff00000007112233446ebeb716608374d292f8f7ba3f7ce1df58748a8a29",
            "81c9000111223344301428fd5df83bf77a2e86e6f610a7f7b9d7e562218e04db80000000",
        ),
        (
            Profile::AeadAes128Gcm,
            false,
            "8060ffff0000000711223344b4dda03a63ff11f09c9bce1a76bf73bb0be5c43fc5",
            "81c9000111223344ad56061df9b4b2bdc14fb87a46dcbcc71a9c1094bf07209e80000000",
        ),
        (
            Profile::AeadAes256Gcm,
            true,
            "8060ffff0000000711223344ebf8dd2ba9de384e861c97f670cd36b6df9f921899",
            "81c900011122334418df0fe372e618ae76fd5fa0f88626790c19c677be29b65280000000",
        ),
        (
            Profile::AeadAes256Gcm,
            false,
            "8060ffff000000071122334457a00298c6fdb9d0a0c7be749a2d5c1e0a9d141438",
            "81c9000111223344dd4f29a6a71f2e6eb53ac6dd2ee3c26593753b83b8a0707a80000000",
        ),
        (
            Profile::Aes128CmSha1_80,
            true,
            "8060ffff0000000711223344fe16355231b5241becf8221b31c014",
            "81c90001112233447c1fe9afb06b36ca80000000c44ea3fb7ac7e98c10a3",
        ),
        (
            Profile::Aes128CmSha1_80,
            false,
            "8060ffff0000000711223344203cd6c074f07cc8718220b2259ce1",
            "81c9000111223344ca34edd5f53c8e7780000000f5df75f80771d685e326",
        ),
    ];
    for (profile, is_client, sealed_rtp, sealed_rtcp) in cases {
        let (client, server) = pair(profile);
        let (from, to) = if is_client { (client, server) } else { (server, client) };
        let (mut sealer, mut opener) = (from.0, to.1);
        check_rtp(&sealer, &opener, ssrc, index, &rtp, &hex(sealed_rtp));
        check_rtcp(&mut sealer, &mut opener, &rtcp, &hex(sealed_rtcp));
    }
}

// ---- round trips and forgeries ---------------------------------------------------------------------------------------

#[test]
fn streams_survive_the_rollover() {
    for profile in PROFILES {
        let ((sealer, _), (_, opener)) = pair(profile);
        let (mut tracker, mut out) = (RolloverTracker::new(), Vec::new());
        for index in 65_500_u64..65_600 {
            let payload = vec![index as u8; (index % 50) as usize];
            let packet = seal(&sealer, index, &payload);
            let guessed = tracker.guess(index as u16);
            opener.open_rtp_into(SSRC, guessed, &packet, HEADER_BYTES, &mut out).unwrap();
            assert!(!tracker.is_replay(guessed));
            tracker.accept(guessed);
            assert!(tracker.is_replay(guessed));
            assert_eq!((guessed, &out), (index, &payload));
            let wrong = opener.open_rtp_into(SSRC, guessed ^ 1 << 16, &packet, HEADER_BYTES, &mut out);
            assert_eq!((wrong, out.len()), (Err(SrtpError::NotAuthentic), 0), "another rollover count");
        }
    }
}

#[test]
fn forged_rtp_is_refused() {
    for profile in PROFILES {
        let ((sealer, _), (_, opener)) = pair(profile);
        let packet = seal(&sealer, 7, b"twenty bytes of text");
        let mut out = Vec::new();
        for bit in 0..packet.len() * 8 {
            let mut forged = packet.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            let opened = opener.open_rtp_into(SSRC, 7, &forged, HEADER_BYTES, &mut out);
            assert_eq!(opened, Err(SrtpError::NotAuthentic), "bit {bit}");
            assert!(out.is_empty(), "unauthentic plaintext is not handed out");
            assert_eq!(opener.open_rtp(SSRC, 7, &mut forged, HEADER_BYTES), Err(SrtpError::NotAuthentic), "bit {bit}");
        }
        let own = pair(profile).0.1.open_rtp_into(SSRC, 7, &packet, HEADER_BYTES, &mut out);
        assert_eq!(own, Err(SrtpError::NotAuthentic), "the two directions have different keys");
    }
}

#[test]
fn forged_rtcp_is_refused_and_does_not_count() {
    for profile in PROFILES {
        let ((mut sealer, _), (_, mut opener)) = pair(profile);
        let mut packet = [hex("81c90007 11223344").as_slice(), b"report"].concat();
        sealer.seal_rtcp(&mut packet, 0).unwrap();
        let flag_at = packet.len() - if profile == Profile::Aes128CmSha1_80 { 14 } else { 4 };
        let mut out = Vec::new();
        for bit in 0..packet.len() * 8 {
            let mut forged = packet.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            let is_flag = bit == flag_at * 8 + 7;
            let expected = if is_flag { SrtpError::UnencryptedRtcp } else { SrtpError::NotAuthentic };
            assert_eq!(opener.open_rtcp(&forged, &mut out), Err(expected), "bit {bit}");
            assert!(out.is_empty());
        }
        assert_eq!(opener.open_rtcp(&packet, &mut out), Ok(()), "no forgery moved the window");
        assert_eq!(opener.open_rtcp(&packet, &mut out), Err(SrtpError::Replayed));
    }
}

#[test]
fn rtcp_replays_are_refused() {
    for profile in PROFILES {
        let ((mut sealer, _), (_, mut opener)) = pair(profile);
        let mut packets = Vec::new();
        for _ in 0..100 {
            let mut packet = hex("80c90001 11223344");
            sealer.seal_rtcp(&mut packet, 0).unwrap();
            packets.push(packet);
        }
        let mut out = Vec::new();
        let mut open = |at: usize| opener.open_rtcp(&packets[at], &mut out);
        // 7 is 63 behind 70, the oldest that the window tells; 6 is out of it.
        let replayed = Err(SrtpError::Replayed);
        let steps = [
            (0, Ok(())),
            (0, replayed),
            (70, Ok(())),
            (68, Ok(())),
            (69, Ok(())),
            (68, replayed),
            (70, replayed),
            (6, replayed),
            (7, Ok(())),
            (7, replayed),
            (99, Ok(())),
        ];
        for (at, expected) in steps {
            assert_eq!(open(at), expected, "{profile:?}: packet {at}");
        }
    }
}

#[test]
fn rtcp_windows_are_kept_by_ssrc_and_bounded() {
    let mut windows = RtcpWindows::default();
    for ssrc in 0..32 {
        windows.accept(ssrc, 1000);
    }
    windows.accept(0, 1001);
    assert!(windows.is_replay(0, 1000) && windows.is_replay(1, 1000) && !windows.is_replay(32, 1000));
    windows.accept(32, 1000);
    assert!(windows.is_replay(32, 1000) && windows.is_replay(0, 1000), "the window just used stays");
    assert!(!windows.is_replay(1, 1000), "the one used longest ago goes");
}

#[test]
fn indices_run_out() {
    for profile in PROFILES {
        let ((mut sealer, _), (_, mut opener)) = pair(profile);
        let mut out = Vec::new();
        let packet = seal(&sealer, RTP_INDEX_MAX, b"last");
        assert_eq!(opener.open_rtp_into(SSRC, RTP_INDEX_MAX, &packet, HEADER_BYTES, &mut out), Ok(()));
        let sealed = sealer.seal_rtp_in_place(SSRC, RTP_INDEX_MAX + 1, &mut packet.clone(), HEADER_BYTES);
        assert_eq!(sealed, Err(SrtpError::IndexExhausted));

        sealer.next_rtcp_index = RTCP_INDEX_MAX;
        let mut packet = hex("80c90001 11223344");
        assert_eq!(sealer.seal_rtcp(&mut packet, 0), Ok(()));
        assert_eq!(opener.open_rtcp(&packet, &mut out), Ok(()));
        assert_eq!(sealer.seal_rtcp(&mut hex("80c90001 11223344"), 0), Err(SrtpError::IndexExhausted));
    }
}

#[test]
fn wrong_lengths_are_refused() {
    for profile in PROFILES {
        let ((mut sealer, mut opener), _) = pair(profile);
        let tag_bytes = profile.rtp_tag_bytes();
        for bytes in 0..=40 {
            // Ones, so that SRTCP's E flag is set wherever the index is.
            let (mut packet, mut out) = (vec![0xFF; bytes], vec![1]);
            for header_bytes in [0, 11, 12, 16, 28, 41, usize::MAX] {
                let fits = (12..=bytes).contains(&header_bytes) && bytes - header_bytes >= tag_bytes;
                let opened = if fits { SrtpError::NotAuthentic } else { SrtpError::TooShort };
                assert_eq!(opener.open_rtp(SSRC, 1, &mut packet, header_bytes), Err(opened));
                assert_eq!(opener.open_rtp_into(SSRC, 1, &packet, header_bytes, &mut out), Err(opened));
                assert!(out.is_empty());
                let sealed = if fits { Ok(()) } else { Err(SrtpError::TooShort) };
                assert_eq!(sealer.seal_rtp_in_place(SSRC, 1, &mut packet.clone(), header_bytes), sealed);
                let sealed = if fits { Err(SrtpError::WrongRoom) } else { sealed };
                assert_eq!(sealer.seal_rtp(SSRC, 1, &mut packet.clone(), header_bytes, &[0; 41]), sealed);
            }
            packet.fill(0xFF);
            let fits = bytes >= 8 + profile.rtcp_trailer_bytes();
            let opened = if fits { SrtpError::NotAuthentic } else { SrtpError::TooShort };
            assert_eq!(opener.open_rtcp(&packet, &mut out), Err(opened), "{profile:?}: {bytes} bytes");
            for start in [0, 1, 40, 41, usize::MAX] {
                let sealed = if bytes >= start.saturating_add(8) { Ok(()) } else { Err(SrtpError::TooShort) };
                assert_eq!(sealer.seal_rtcp(&mut packet.clone(), start), sealed);
            }
        }
        let mut long = vec![0xFF; PACKET_MAX_BYTES + 1];
        assert_eq!(opener.open_rtp(SSRC, 1, &mut long, 12), Err(SrtpError::TooLong));
        assert_eq!(opener.open_rtcp(&long, &mut Vec::new()), Err(SrtpError::TooLong));
        assert_eq!(sealer.seal_rtp_in_place(SSRC, 1, &mut long, 12), Err(SrtpError::TooLong));
        assert_eq!(sealer.seal_rtcp(&mut long, 0), Err(SrtpError::TooLong));
        for bytes in (0..200).filter(|bytes| *bytes != profile.keying_material_bytes()) {
            let refused = KeyingMaterial::new(profile, &vec![0; bytes]).err();
            assert_eq!(refused, Some(SrtpError::BadKeyLength));
        }
    }
}

#[test]
fn contexts_move_between_threads() {
    fn is_send<T: Send>() {}
    is_send::<(Sealer, Opener, KeyingMaterial)>();
}

// ---- rollovers -------------------------------------------------------------------------------------------------------

#[test]
fn rollovers_are_guessed_across_the_wrap() {
    const R: u64 = 1 << 16;
    // Highest index so far; sequence number received; its index.
    let cases = [
        (None, 0, 0),
        (None, 65_535, 65_535),
        (Some(65_535), 0, R),
        (Some(65_534), 1, R + 1),
        (Some(R), 65_535, 65_535),
        (Some(R + 2), 65_533, 65_533),
        (Some(R + 2), 3, R + 3),
        (Some(R + 3), 2, R + 2),
        // Before the first rollover nothing is older than 0.
        (Some(5), 65_530, 65_530),
        // Exactly half the range away: the same rollover count (RFC 3711, appendix A).
        (Some(R + 5), 32_773, R + 32_773),
        (Some(R + 5), 32_774, 32_774),
        (Some(R + 32_768), 0, R),
        (Some(R + 32_769), 0, 2 * R),
        (Some(R + 32_769), 1, R + 1),
        (Some(RTP_INDEX_MAX), 65_000, RTP_INDEX_MAX - 535),
        (Some(RTP_INDEX_MAX), 0, RTP_INDEX_MAX + 1),
    ];
    for (highest, seq, expected) in cases {
        let mut tracker = RolloverTracker::new();
        highest.into_iter().for_each(|index| tracker.accept(index));
        assert_eq!(tracker.guess(seq), expected, "{seq} after {highest:?}");
        assert_eq!(tracker.highest(), highest);
    }
}

#[test]
fn reordering_around_the_wrap_is_followed() {
    let mut tracker = RolloverTracker::default();
    // Sequence number; its index; whether it came before.
    let steps = [
        (65_533, 65_533, false),
        (65_535, 65_535, false),
        (1, 65_537, false),
        (65_534, 65_534, false),
        (65_534, 65_534, true),
        (0, 65_536, false),
        (65_535, 65_535, true),
        (0, 65_536, true),
        (2, 65_538, false),
        (65_533, 65_533, true),
        (64_514, 64_514, true), // 1,024 behind: too old to tell
        (64_515, 64_515, false),
        (64_515, 64_515, true),
        (65_038, 65_038, false), // as far back as a NACK asks
        (20_000, 85_536, false), // beyond the whole window
        (19_999, 85_535, false),
        (2, 65_538, true),
    ];
    for (at, (seq, index, replayed)) in steps.into_iter().enumerate() {
        let guessed = tracker.guess(seq);
        assert_eq!((guessed, tracker.is_replay(guessed)), (index, replayed), "step {at}: {seq}");
        if !replayed {
            tracker.accept(guessed);
        }
    }
    assert_eq!(tracker.highest(), Some(85_536));
    tracker.accept(1);
    assert_eq!(tracker.highest(), Some(85_536), "an old packet moves nothing");
}

#[test]
fn replays_are_told_as_a_set_of_all_would() {
    for seed in 0..20 {
        let mut rng = crate::ids::IdSource::from_seed([seed; 32]);
        let (mut tracker, mut accepted) = (RolloverTracker::new(), std::collections::BTreeSet::new());
        let mut highest = 70_000_u64;
        for _ in 0..20_000 {
            // In order, a gap, late, or far ahead.
            let index = match rng.bits() % 100 {
                0..60 => highest + 1,
                60..80 => highest + u64::from(rng.bits() % 70),
                80..99 => highest - u64::from(rng.bits() % 1100),
                _ => highest + u64::from(rng.bits() % 3000),
            };
            let replayed = accepted.contains(&index) || (!accepted.is_empty() && index + 1024 <= highest);
            assert_eq!(tracker.is_replay(index), replayed, "seed {seed}: {index} after {highest}");
            if !replayed {
                tracker.accept(index);
                accepted.insert(index);
                highest = highest.max(index);
            }
            assert_eq!(tracker.highest(), accepted.last().copied());
        }
    }
}
