//! Descriptors for tests, written bit by bit after AV1 RTP, appendix A.8.2, and sharing nothing with the reader.

/// The lines of a table like those of A.10.2: spatial and temporal id, frame diffs, chain diffs, indications by target.
pub type TemplateRow = (u8, u8, &'static [u8], &'static [u8], &'static str);

/// A structure to describe.
#[derive(Debug, Clone)]
pub struct Layout {
    pub first_id: u8,
    /// In the order of layers.
    pub templates: Vec<TemplateRow>,
    /// The chain of each target; empty without chains.
    pub protected_by: Vec<u8>,
    pub chains: u8,
    /// Width and height by spatial id; empty without.
    pub resolutions: Vec<(u16, u16)>,
    /// Indices of the templates that a keyframe's frames use, then those of the frames after it, again and again.
    pub keyframe: &'static [u8],
    pub period: &'static [u8],
}

impl Layout {
    pub fn targets(&self) -> usize {
        self.templates[0].4.len()
    }

    /// The template id of the frame so many frames after a keyframe's first.
    pub fn template_id(&self, frame: usize) -> u8 {
        let index = match frame.checked_sub(self.keyframe.len()) {
            None => self.keyframe[frame],
            Some(later) => self.period[later % self.period.len()],
        };
        (self.first_id + index) % 64
    }
}

/// A descriptor to write.
#[derive(Debug, Clone, Copy, Default)]
pub struct Descriptor<'a> {
    pub starts_frame: bool,
    pub ends_frame: bool,
    pub template_id: u8,
    pub frame_number: u16,
    pub structure: Option<&'a Layout>,
    /// Bitmask, and how many decode targets there are.
    pub active: Option<(u32, usize)>,
    /// By decode target, as in [`TemplateRow`].
    pub indications: Option<&'a str>,
    pub frame_diffs: Option<&'a [u16]>,
    pub chain_diffs: Option<&'a [u8]>,
}

/// `dependency_descriptor`.
pub fn encode(descriptor: &Descriptor<'_>) -> Vec<u8> {
    let mut bits = Bits::default();
    bits.f(1, descriptor.starts_frame.into());
    bits.f(1, descriptor.ends_frame.into());
    bits.f(6, descriptor.template_id.into());
    bits.f(16, descriptor.frame_number.into());
    let flags = [
        descriptor.structure.is_some(),
        descriptor.active.is_some(),
        descriptor.indications.is_some(),
        descriptor.frame_diffs.is_some(),
        descriptor.chain_diffs.is_some(),
    ];
    if flags.contains(&true) {
        flags.iter().for_each(|flag| bits.f(1, (*flag).into()));
    }
    if let Some(layout) = descriptor.structure {
        bits.structure(layout);
    }
    if let Some((active, targets)) = descriptor.active {
        bits.f(targets, active);
    }
    if let Some(indications) = descriptor.indications {
        bits.indications(indications);
    }
    if let Some(diffs) = descriptor.frame_diffs {
        for diff in diffs {
            let units = match diff {
                ..=16 => 1,
                ..=256 => 2,
                _ => 3,
            };
            bits.f(2, units);
            bits.f(4 * units as usize, u32::from(*diff) - 1);
        }
        bits.f(2, 0);
    }
    for diff in descriptor.chain_diffs.unwrap_or_default() {
        bits.f(8, (*diff).into());
    }
    bits.bytes()
}

/// Binary digits, highest first.
#[derive(Debug, Default)]
struct Bits(String);

impl Bits {
    fn f(&mut self, n: usize, value: u32) {
        self.0.extend((0..n).rev().map(|bit| if (value >> bit) & 1 == 1 { '1' } else { '0' }));
    }

    /// `write_ns`.
    fn ns(&mut self, n: u32, value: u32) {
        let mut w = 0;
        while n >> w != 0 {
            w += 1;
        }
        let m = (1 << w) - n;
        if value < m { self.f(w - 1, value) } else { self.f(w, value + m) }
    }

    fn indications(&mut self, symbols: &str) {
        symbols.chars().for_each(|symbol| self.f(2, "-DSR".chars().position(|s| s == symbol).unwrap_or(9) as u32));
    }

    /// `template_dependency_structure`.
    fn structure(&mut self, layout: &Layout) {
        let targets = layout.targets() as u32;
        self.f(6, layout.first_id.into());
        self.f(5, targets - 1);
        for pair in layout.templates.windows(2) {
            let next = if pair[0].0 < pair[1].0 { 2 } else { u32::from(pair[1].1 - pair[0].1) };
            self.f(2, next);
        }
        self.f(2, 3);
        layout.templates.iter().for_each(|template| self.indications(template.4));
        for template in &layout.templates {
            for diff in template.2 {
                self.f(1, 1);
                self.f(4, u32::from(*diff) - 1);
            }
            self.f(1, 0);
        }
        self.ns(targets + 1, layout.chains.into());
        if layout.chains > 0 {
            layout.protected_by.iter().for_each(|chain| self.ns(layout.chains.into(), (*chain).into()));
            layout.templates.iter().flat_map(|template| template.3).for_each(|diff| self.f(4, (*diff).into()));
        }
        self.f(1, (!layout.resolutions.is_empty()).into());
        for (width, height) in &layout.resolutions {
            self.f(16, u32::from(*width) - 1);
            self.f(16, u32::from(*height) - 1);
        }
    }

    fn bytes(mut self) -> Vec<u8> {
        while !self.0.len().is_multiple_of(8) {
            self.0.push('0');
        }
        let bytes = self.0.as_bytes().chunks(8);
        bytes.map(|byte| byte.iter().fold(0, |value, digit| value << 1 | (digit - b'0'))).collect()
    }
}

/// One spatial layer, three temporal ones (A.10.2.1). Target 0 is the whole stream.
pub fn l1t3() -> Layout {
    Layout {
        first_id: 0,
        templates: vec![
            (0, 0, &[], &[0], "SSS"),
            (0, 0, &[4], &[4], "SSS"),
            (0, 1, &[2], &[2], "SD-"),
            (0, 2, &[1], &[1], "D--"),
            (0, 2, &[1], &[3], "D--"),
        ],
        protected_by: vec![0; 3],
        chains: 1,
        resolutions: Vec::new(),
        keyframe: &[0],
        period: &[3, 2, 4, 1],
    }
}

/// Three spatial layers, each depending on the one below, three temporal ones (A.10.2.2). Targets come from the whole
/// stream down, by spatial, then by temporal layer.
pub fn l3t3() -> Layout {
    Layout {
        first_id: 10,
        templates: vec![
            (0, 0, &[], &[0, 0, 0], "SSSSSSSSS"),
            (0, 0, &[12], &[12, 11, 10], "RRRRRRSSS"),
            (0, 1, &[6], &[6, 5, 4], "RR-RR-SD-"),
            (0, 2, &[3], &[3, 2, 1], "R--R--D--"),
            (0, 2, &[3], &[9, 8, 7], "R--R--D--"),
            (1, 0, &[1], &[1, 1, 1], "SSSSSS---"),
            (1, 0, &[12, 1], &[1, 1, 1], "RRRSSS---"),
            (1, 1, &[6, 1], &[7, 6, 5], "RR-SD----"),
            (1, 2, &[3, 1], &[4, 3, 2], "R--D-----"),
            (1, 2, &[3, 1], &[10, 9, 8], "R--D-----"),
            (2, 0, &[1], &[2, 1, 1], "SSS------"),
            (2, 0, &[12, 1], &[2, 1, 1], "SSS------"),
            (2, 1, &[6, 1], &[8, 7, 6], "SD-------"),
            (2, 2, &[3, 1], &[5, 4, 3], "D--------"),
            (2, 2, &[3, 1], &[11, 10, 9], "D--------"),
        ],
        protected_by: vec![2, 2, 2, 1, 1, 1, 0, 0, 0],
        chains: 3,
        resolutions: vec![(320, 180), (640, 360), (1280, 720)],
        keyframe: &[0, 5, 10],
        period: &[3, 8, 13, 2, 7, 12, 4, 9, 14, 1, 6, 11],
    }
}

/// Like [`l3t3`], but only a keyframe's spatial layers depend on each other. Its ids go round.
pub fn l3t3_key() -> Layout {
    Layout {
        first_id: 60,
        templates: vec![
            (0, 0, &[], &[0, 0, 0], "SSSSSSSSS"),
            (0, 0, &[12], &[12, 11, 10], "------SSS"),
            (0, 1, &[6], &[6, 5, 4], "------SD-"),
            (0, 2, &[3], &[3, 2, 1], "------D--"),
            (0, 2, &[3], &[9, 8, 7], "------D--"),
            (1, 0, &[1], &[1, 1, 1], "SSSSSS---"),
            (1, 0, &[12], &[1, 12, 11], "---SSS---"),
            (1, 1, &[6], &[7, 6, 5], "---SD----"),
            (1, 2, &[3], &[4, 3, 2], "---D-----"),
            (1, 2, &[3], &[10, 9, 8], "---D-----"),
            (2, 0, &[1], &[2, 1, 1], "SSS------"),
            (2, 0, &[12], &[2, 1, 12], "SSS------"),
            (2, 1, &[6], &[8, 7, 6], "SD-------"),
            (2, 2, &[3], &[5, 4, 3], "D--------"),
            (2, 2, &[3], &[11, 10, 9], "D--------"),
        ],
        ..l3t3()
    }
}
