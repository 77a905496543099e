//! Descriptors of the specification's structures, and of bytes that are none.

use super::encoder::{Descriptor, Layout, encode, l1t3, l3t3, l3t3_key};
use super::*;

/// Highest spatial and temporal id of nine targets, from the whole stream down.
const NINE: [(u8, u8); 9] = [(2, 2), (2, 1), (2, 0), (1, 2), (1, 1), (1, 0), (0, 2), (0, 1), (0, 0)];

/// A keyframe's first packet.
fn opening(layout: &Layout) -> Descriptor<'_> {
    Descriptor {
        starts_frame: true,
        template_id: layout.template_id(0),
        frame_number: 0xfffe,
        structure: Some(layout),
        ..Descriptor::default()
    }
}

fn opened(layout: &Layout) -> Option<Box<Structure>> {
    let mut structure = None;
    read(&encode(&opening(layout)), &mut structure).unwrap();
    structure
}

/// A packet with all that a descriptor without a structure can have.
fn custom(layout: &Layout) -> Descriptor<'_> {
    Descriptor {
        ends_frame: true,
        template_id: layout.template_id(1),
        frame_number: 9,
        active: Some((0b101, layout.targets())),
        indications: Some(&"RSD-RSD-R"[..layout.targets()]),
        frame_diffs: Some(&[1, 16, 17, 256, 257, 4096]),
        chain_diffs: Some(&[255, 0, 7][..layout.chains.into()]),
        ..Descriptor::default()
    }
}

/// Draws bytes; the seed is not zero.
fn random(state: &mut u64) -> u8 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 32) as u8
}

#[test]
fn structures_are_read_as_they_are_tabled() {
    for layout in [l1t3(), l3t3(), l3t3_key()] {
        let structure = opened(&layout).unwrap();
        assert_eq!((structure.targets(), structure.chains()), (layout.targets(), layout.chains.into()));
        for (index, row) in layout.templates.iter().enumerate() {
            let template = structure.template((layout.first_id + index as u8) % 64).unwrap();
            assert_eq!((template.spatial, template.temporal, &template.frame_diffs[..]), (row.0, row.1, row.2));
            assert_eq!(template.chain_diffs[..layout.chains.into()], *row.3);
            let symbol = |target| b"-DSR"[((template.indications >> (2 * target)) & 3) as usize];
            assert_eq!((0..layout.targets()).map(symbol).collect::<Vec<_>>(), row.4.as_bytes());
        }
        assert_eq!(structure.template((layout.first_id + layout.templates.len() as u8) % 64), None);
        assert_eq!(structure.template((layout.first_id + 63) % 64), None);
        let chains = (0..layout.targets()).map(|target| structure.protected_by(target).unwrap());
        assert!(chains.eq(layout.protected_by.iter().copied()));
    }
}

#[test]
fn targets_have_the_layers_of_their_templates() {
    for layout in [l3t3(), l3t3_key()] {
        let structure = opened(&layout).unwrap();
        assert_eq!((0..9).filter_map(|target| structure.layer_of(target)).collect::<Vec<_>>(), NINE);
        for none in [9, 15, 16, usize::MAX] {
            assert_eq!((structure.layer_of(none), structure.protected_by(none)), (None, None));
        }
    }
    let mut layout = l1t3();
    layout.templates = vec![(0, 0, &[], &[], "-S")];
    layout.chains = 0;
    let structure = opened(&layout).unwrap();
    assert_eq!((structure.layer_of(0), structure.layer_of(1)), (None, Some((0, 0))), "target 0 is never present");
    assert_eq!((structure.chains(), structure.protected_by(1)), (0, None));
}

#[test]
fn resolutions_are_by_spatial_layer() {
    let mut layout = l3t3();
    let structure = opened(&layout).unwrap();
    assert_eq!(
        [0, 1, 2, 3, 255].map(|spatial| structure.height_of(spatial)),
        [Some(180), Some(360), Some(720), None, None]
    );
    assert_eq!(structure.resolution_of(2), Some((1280, 720)));
    layout.resolutions.clear();
    assert_eq!(opened(&layout).unwrap().height_of(0), None);
}

/// Encodes a stream and follows its chains, in which each frame's predecessor is known from the indications alone.
#[test]
fn streams_keep_their_chains() {
    for layout in [l1t3(), l3t3(), l3t3_key()] {
        let mut structure = None;
        let mut latest = [None; MAX_CHAINS];
        for index in 0..100 {
            let number = 0xfffe_u16.wrapping_add(index);
            let first = index == 0;
            let template_id = layout.template_id(index.into());
            let bytes = encode(&Descriptor {
                template_id,
                frame_number: number,
                structure: first.then_some(&layout),
                ..Descriptor::default()
            });
            assert!(first || bytes.len() == 3);
            let frame = read(&bytes, &mut structure).unwrap();
            let structure = structure.as_ref().unwrap();
            assert_eq!((frame.frame_number, frame.has_structure), (number, first));
            assert_eq!(frame.active_targets, first.then_some((1 << layout.targets()) - 1));
            for (chain, latest) in latest.iter_mut().enumerate().take(structure.chains()) {
                let distance = latest.map_or(0, |latest| number.wrapping_sub(latest));
                assert_eq!(u16::from(frame.chain_diffs[chain]), distance, "{index} {chain}");
                let mut targets = (0..9).filter(|t| structure.protected_by(*t) == Some(chain as u8));
                if targets.all(|t| matches!(frame.indication(t), Indication::Switch | Indication::Required)) {
                    *latest = Some(number);
                }
            }
        }
    }
}

#[test]
fn a_descriptor_overrides_its_template() {
    let layout = l3t3();
    let mut structure = opened(&layout);
    let before = structure.clone();
    let expected = Frame {
        starts_frame: false,
        ends_frame: true,
        frame_number: 9,
        spatial: 1,
        temporal: 0,
        indications: 0b11_00_01_10_11_00_01_10_11,
        chain_diffs: [255, 0, 7, 0],
        active_targets: Some(0b101),
        has_structure: false,
    };
    assert_eq!(read(&encode(&custom(&layout)), &mut structure), Ok(expected));
    assert_eq!(structure, before);
    let indications = [0, 1, 2, 3, 4, 9, 16, usize::MAX].map(|target| expected.indication(target));
    use Indication::{Discardable, NotPresent, Required, Switch};
    let absent = [NotPresent; 3];
    assert_eq!(indications[..5], [Required, Switch, Discardable, NotPresent, Required]);
    assert_eq!(indications[5..], absent);
}

#[test]
fn a_structure_is_in_force_until_the_next() {
    let (old, new) = (l1t3(), l3t3());
    let mut structure = opened(&old);
    let later = encode(&Descriptor { template_id: new.template_id(4), ..Descriptor::default() });
    assert_eq!(read(&later, &mut None), Err(Fault::UnknownTemplate));
    assert_eq!(read(&later, &mut structure), Err(Fault::UnknownTemplate));
    assert_eq!(structure, opened(&old));
    let active = Descriptor { active: Some((0b111, 9)), ..opening(&new) };
    assert_eq!(read(&encode(&active), &mut structure).unwrap().active_targets, Some(0b111));
    assert_eq!(structure, opened(&new));
    assert_eq!(read(&later, &mut structure).map(|frame| (frame.spatial, frame.temporal)), Ok((1, 2)));
    let foreign = Descriptor { template_id: old.template_id(0), ..opening(&new) };
    assert_eq!(read(&encode(&foreign), &mut structure), Err(Fault::Malformed));
    assert_eq!(structure, opened(&new));
}

#[test]
fn too_many_layers_leave_no_structure() {
    let fault = |layout: &Layout| {
        let mut structure = opened(&l1t3());
        let fault = read(&encode(&opening(layout)), &mut structure).err();
        assert_eq!(structure.is_none(), fault.is_none_or(|fault| fault == Fault::TooManyLayers) && fault.is_some());
        fault
    };
    let layout = |templates, chains| Layout { templates, chains, protected_by: vec![0; 16], ..l1t3() };
    let spatial = |count| layout((0..count).map(|s| (s, 0, &[][..], &[][..], "SSSSSSSSSSSSSSSS")).collect(), 0);
    assert_eq!((fault(&spatial(4)), fault(&spatial(5))), (None, Some(Fault::TooManyLayers)));
    let temporal = |count| layout((0..count).map(|t| (0, t, &[][..], &[][..], "SSSSSSSSSSSSSSSS")).collect(), 0);
    assert_eq!((fault(&temporal(8)), fault(&temporal(9))), (None, Some(Fault::TooManyLayers)));
    let many = |count| layout((0..count).map(|_| (0, 0, &[][..], &[][..], "S")).collect(), 0);
    assert_eq!((fault(&many(64)), fault(&many(65))), (None, Some(Fault::Malformed)));
    let targets = |symbols| layout(vec![(0, 0, &[], &[], symbols)], 0);
    assert_eq!(fault(&targets("SSSSSSSSSSSSSSSS")), None);
    assert_eq!(fault(&targets("SSSSSSSSSSSSSSSSS")), Some(Fault::TooManyLayers));
    let chains = |diffs: &'static [u8]| layout(vec![(0, 0, &[], diffs, "SSSSSSSSSSSSSSSS")], diffs.len() as u8);
    assert_eq!((fault(&chains(&[0; 4])), fault(&chains(&[0; 5]))), (None, Some(Fault::TooManyLayers)));
}

#[test]
fn a_truncated_descriptor_is_too_short() {
    for layout in [l1t3(), l3t3(), l3t3_key()] {
        let before = opened(&l1t3());
        let whole = encode(&Descriptor { structure: Some(&layout), ..custom(&layout) });
        for length in (0..whole.len()).filter(|length| *length != MANDATORY_BYTES) {
            let mut structure = before.clone();
            assert_eq!(read(&whole[..length], &mut structure), Err(Fault::TooShort), "{length}");
            assert_eq!(structure, before);
            // What is lost of the chains at the end looks like padding.
            let copy = rewrite(&whole[..length], layout.targets(), 1, Some(1), &mut [0; 255]);
            assert!(copy.is_none() || length + 1 + usize::from(layout.chains) >= whole.len(), "{length}");
        }
        let whole = encode(&custom(&layout));
        for length in (0..whole.len()).filter(|length| *length != MANDATORY_BYTES) {
            assert_eq!(read(&whole[..length], &mut opened(&layout)), Err(Fault::TooShort), "{length}");
        }
    }
}

#[test]
fn a_copy_differs_in_number_and_active_targets_alone() {
    for layout in [l1t3(), l3t3(), l3t3_key()] {
        let targets = layout.targets();
        let short =
            Descriptor { active: None, indications: None, frame_diffs: None, chain_diffs: None, ..custom(&layout) };
        let without = Descriptor { active: None, ..custom(&layout) };
        let with_structure = Descriptor { structure: Some(&layout), ..custom(&layout) };
        let no_chains = Descriptor { chain_diffs: None, ..custom(&layout) };
        for descriptor in [short, without, no_chains, custom(&layout), opening(&layout), with_structure] {
            let bytes = encode(&descriptor);
            let mut out = [0xff; 255];
            for active in [None, Some(0b010), Some(u32::MAX)] {
                let written = rewrite(&bytes, targets, 0xfffd, active, &mut out).unwrap();
                let expected = Descriptor {
                    frame_number: descriptor.frame_number.wrapping_sub(3),
                    active: active.map(|active| (active & ((1 << targets) - 1), targets)).or(descriptor.active),
                    ..descriptor
                };
                assert_eq!(out[..written], encode(&expected), "{expected:?}");
                let mut structure = opened(&layout);
                let (before, after) = (read(&bytes, &mut structure).unwrap(), read(&out[..written], &mut structure));
                let active_targets = active.map(|active| active & ((1 << targets) - 1)).or(before.active_targets);
                assert_eq!(after, Ok(Frame { frame_number: expected.frame_number, active_targets, ..before }));
                assert_eq!(structure, opened(&layout));
                for room in 0..written {
                    assert_eq!(rewrite(&bytes, targets, 0xfffd, active, &mut out[..room]), None);
                }
            }
        }
    }
}

#[test]
fn a_structure_tells_how_many_targets_there_are() {
    let layout = l3t3();
    let mut out = [0; 255];
    let written = rewrite(&encode(&opening(&layout)), 2, 0, Some(0b1_0000_0000), &mut out).unwrap();
    assert_eq!(read(&out[..written], &mut None).unwrap().active_targets, Some(0b1_0000_0000));
}

#[test]
fn a_copy_that_makes_no_sense_is_not_written() {
    let bytes = encode(&Descriptor::default());
    let mut out = [0; 255];
    assert_eq!(rewrite(&bytes, 3, 1, Some(0), &mut out), None, "no target is active");
    assert_eq!(rewrite(&bytes, 3, 1, Some(0b1000), &mut out), None, "none that there is");
    for targets in [0, 17, 32, 64, usize::MAX] {
        assert_eq!(rewrite(&bytes, targets, 1, Some(1), &mut out), None);
    }
    assert_eq!(rewrite(&bytes[..2], 3, 1, None, &mut out), None);
    assert_eq!(rewrite(&bytes, 16, 1, Some(0x8000), &mut out), Some(6));
    assert_eq!(out[..6], [0, 0, 1, 0x44, 0x00, 0x00]);
}

#[test]
fn a_shift_wraps_the_number_alone() {
    let mut bytes = encode(&custom(&l3t3()));
    assert!(shift(&mut bytes, 0xfff0));
    assert_eq!(bytes, encode(&Descriptor { frame_number: 0xfff9, ..custom(&l3t3()) }));
    let mut short = [0x80, 1];
    assert!(!shift(&mut short, 1));
    assert_eq!(short, [0x80, 1]);
}

#[test]
fn no_bytes_make_it_panic() {
    let mut state = 0x9e37_79b9_7f4a_7c15;
    let mut structure = None;
    let (mut frames, mut structures, mut copies) = (0, 0, 0);
    for _ in 0..100_000 {
        let length = random(&mut state) % 80;
        let mut bytes: Vec<u8> = (0..length).map(|_| random(&mut state)).collect();
        // Few targets and templates, or hardly anything would be a structure.
        if let Some([a, b, ..]) = bytes.get_mut(4..).filter(|_| random(&mut state) < 0x80) {
            *a &= 0x0f;
            *b |= 0x3c;
        }
        let outcome = read(&bytes, &mut structure);
        frames += u32::from(outcome.is_ok());
        structures += u32::from(outcome.is_ok_and(|frame| frame.has_structure));
        if let (Ok(frame), Some(structure)) = (outcome, structure.as_deref()) {
            assert!(structure.targets() <= MAX_TARGETS && structure.chains() <= MAX_CHAINS);
            assert!(usize::from(frame.spatial) < MAX_SPATIAL && frame.temporal < 8);
            let chains = (0..MAX_TARGETS).filter_map(|target| structure.protected_by(target));
            assert!(chains.into_iter().all(|chain| usize::from(chain) < structure.chains()));
        }
        let targets = structure.as_deref().map_or(3, Structure::targets);
        let active = u32::from(random(&mut state));
        let mut out = [0; 90];
        let written = rewrite(&bytes, targets, 7, Some(active), &mut out);
        if let (Ok(before), Some(written)) = (outcome, written) {
            let active_targets = Some(active & ((1 << targets) - 1));
            let after = read(&out[..written], &mut structure);
            assert_eq!(
                after,
                Ok(Frame { frame_number: before.frame_number.wrapping_add(7), active_targets, ..before })
            );
            copies += 1;
        }
    }
    assert!(frames > 500 && structures > 400 && copies > 400, "{frames} {structures} {copies}");
}

#[test]
fn no_damage_to_a_descriptor_makes_it_panic() {
    let mut state = 0x2545_f491_4f6c_dd1d;
    for layout in [l1t3(), l3t3(), l3t3_key()] {
        let whole = encode(&Descriptor { structure: Some(&layout), ..custom(&layout) });
        let mut structure = None;
        for _ in 0..30_000 {
            let mut bytes = whole.clone();
            for _ in 0..1 + random(&mut state) % 4 {
                let at = usize::from(random(&mut state)) % bytes.len();
                bytes[at] ^= 1 << (random(&mut state) % 8);
            }
            let outcome = read(&bytes, &mut structure);
            assert!(outcome.is_err() || structure.is_some());
            if rewrite(&bytes, 9, 1, Some(0b11), &mut [0; 255]).is_none() {
                assert!(!matches!(outcome, Ok(frame) if frame.has_structure));
            }
        }
    }
}
