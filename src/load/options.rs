//! The command line of `stube load`, and what it makes of rooms and media.

use anyhow::{bail, ensure};
use clap::{Args, ValueEnum};

use super::link::Wishes;
use super::mark::{AUDIO_HEAD_BYTES, MARK_BYTES, VIDEO_HEAD_BYTES};
use super::outbound::Shape;

/// A packet of discontinuous transmission; a real one has 1 to 3 bytes, but ours must carry the mark.
pub const SILENT_BYTES: usize = AUDIO_HEAD_BYTES + MARK_BYTES;
/// What fits a datagram with headers and tag under every common path MTU.
const PAYLOAD_MAX_BYTES: usize = 1200;
const MICROPHONE_PPS: f64 = 50.0;
/// Of the bitrate, by layer, and how much smaller packets become.
const SIMULCAST_SHARES: [f64; 3] = [0.1, 0.3, 1.0];

/// Situations in which the server is at home.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    /// 300 rooms of 4 and 30 of 10.
    Bubbles,
    /// One room of 50 who all have camera and microphone on.
    Meeting,
    /// One who is seen and heard by 1000.
    Stage,
    /// 70 rooms of 7 at 540p, some 500 kbit/s each.
    Cosmo,
}

/// Plays many participants against a server and reports what it cost and what arrived.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// The server's HTTP API, such as `http://127.0.0.1:7880`; `http.listen` of the configuration unless given.
    #[arg(long)]
    pub url: Option<String>,
    /// The API key to allocate rooms and sign tokens with; the first one of the configuration unless given. Its secret
    /// stands in the configuration, or in the variable `STUBE_SECRET`. Where there is no configuration file, a server on
    /// this machine is asked with the shipped key.
    #[arg(long)]
    pub key: Option<String>,
    /// A situation; options that are given besides go before it.
    #[arg(long, value_enum)]
    pub preset: Option<Preset>,
    /// Multiplies the number of rooms, or of participants if there is one room.
    #[arg(long, default_value_t = 1.0)]
    pub scale: f64,
    /// Rooms [default: 1].
    #[arg(long)]
    pub rooms: Option<usize>,
    /// Participants of each room [default: 2].
    #[arg(long)]
    pub participants: Option<usize>,
    /// How many of a room have their camera on [default: all].
    #[arg(long)]
    pub publishers: Option<usize>,
    /// How many of a room have a microphone [default: all].
    #[arg(long)]
    pub audio_publishers: Option<usize>,
    /// The share of those with a microphone who speak; they take turns every 10 s. The others send a packet each 400 ms.
    #[arg(long)]
    pub talkers: Option<f64>,
    /// Bitrate of a camera, in kbit/s, of the largest layer [default: 300].
    #[arg(long)]
    pub video_kbps: Option<f64>,
    /// Frames a second [default: 30, or what --packets-per-frame asks for].
    #[arg(long)]
    pub fps: Option<f64>,
    /// Packets of a frame [default: what the bitrate asks for].
    #[arg(long)]
    pub packets_per_frame: Option<u16>,
    /// Payload of a video packet, in bytes, at most.
    #[arg(long, default_value_t = 1100)]
    pub payload_bytes: usize,
    /// Bitrate of a microphone, in kbit/s; 40 are packets of 100 bytes.
    #[arg(long, default_value_t = 40.0)]
    pub audio_kbps: f64,
    /// No microphones and no audio slots.
    #[arg(long)]
    pub no_audio: bool,
    /// No cameras and no video slots.
    #[arg(long)]
    pub no_video: bool,
    /// Cameras send three encodings, at a tenth, three tenths and all of the bitrate.
    #[arg(long)]
    pub simulcast: bool,
    /// Receiving video m-lines of each participant [default: 9, if there are so many to see].
    #[arg(long)]
    pub video_slots: Option<usize>,
    /// Receiving audio m-lines of each participant [default: 4, if there are so many to hear].
    #[arg(long)]
    pub audio_slots: Option<usize>,
    /// No data channel.
    #[arg(long)]
    pub no_data_channel: bool,
    /// Joins a second, until all are there.
    #[arg(long, default_value_t = 50.0)]
    pub join_rate: f64,
    /// After that so many leave and join again each second, at random.
    #[arg(long, default_value_t = 0.0)]
    pub churn: f64,
    /// Seconds between the last join and the measuring.
    #[arg(long, default_value_t = 5.0)]
    pub warmup: f64,
    /// Seconds of measuring.
    #[arg(long, default_value_t = 15.0)]
    pub duration: f64,
    /// Milliseconds between transport-wide feedback.
    #[arg(long, default_value_t = 50)]
    pub feedback_ms: u64,
    /// Microseconds between two looks at the sockets; 0 waits for packets and so is woken by the server's sends.
    #[arg(long, default_value_t = 1000)]
    pub poll_us: u64,
    /// Datagrams a second that the last participant sends besides, and that no key has sealed: a flood.
    #[arg(long, default_value_t = 0)]
    pub flood: u64,
    /// Percent of received media packets to throw away, as a bad network would.
    #[arg(long, default_value_t = 0.0)]
    pub loss: f64,
    /// The server's process, to report its CPU time and memory.
    #[arg(long)]
    pub pid: Option<u32>,
    /// Print the report as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// One room to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomPlan {
    pub participants: usize,
    pub cameras: usize,
    pub microphones: usize,
}

/// What is to be played.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub rooms: Vec<RoomPlan>,
    /// One shape for each encoding, the smallest first.
    pub video: Vec<Shape>,
    pub audio_bytes: usize,
    pub talkers: f64,
    pub video_slots: Option<usize>,
    pub audio_slots: Option<usize>,
    pub channel: bool,
}

/// What a preset sets: rooms of so many, cameras, kbit/s, frames a second, share of talkers.
struct Situation {
    rooms: Vec<(usize, usize)>,
    cameras: usize,
    kbps: f64,
    fps: Option<f64>,
    talkers: f64,
}

impl Preset {
    fn situation(self) -> Situation {
        let (rooms, cameras, kbps, fps, talkers) = match self {
            Self::Bubbles => (vec![(300, 4), (30, 10)], usize::MAX, 300.0, 15.0, 0.3),
            Self::Meeting => (vec![(1, 50)], usize::MAX, 300.0, 15.0, 0.1),
            Self::Stage => (vec![(1, 1001)], 1, 2000.0, 30.0, 1.0),
            Self::Cosmo => (vec![(70, 7)], usize::MAX, 500.0, 20.0, 0.3),
        };
        Situation { rooms, cameras, kbps, fps: Some(fps), talkers }
    }
}

impl Options {
    /// What is to be played.
    pub fn plan(&self) -> anyhow::Result<Plan> {
        let plain = Situation { rooms: vec![(1, 2)], cameras: usize::MAX, kbps: 300.0, fps: None, talkers: 1.0 };
        let situation = self.preset.map_or(plain, Preset::situation);
        ensure!(self.scale > 0.0 && self.scale.is_finite(), "--scale must be above 0");
        ensure!(self.join_rate > 0.0, "--join-rate must be above 0");
        ensure!(self.feedback_ms > 0, "--feedback-ms must be above 0");
        let mut shapes = situation.rooms;
        if self.rooms.is_some() || self.participants.is_some() {
            let first = shapes.first().copied().unwrap_or((1, 2));
            shapes = vec![(self.rooms.unwrap_or(first.0), self.participants.unwrap_or(first.1))];
        }
        let scaled = scale(&shapes, self.scale);
        // A stage has one microphone too.
        let stage = self.preset == Some(Preset::Stage);
        let cameras = self.publishers.unwrap_or(situation.cameras);
        let microphones = self.audio_publishers.unwrap_or(if stage { 1 } else { usize::MAX });
        let room = |participants: usize| RoomPlan {
            participants,
            cameras: if self.no_video { 0 } else { cameras.min(participants) },
            microphones: if self.no_audio { 0 } else { microphones.min(participants) },
        };
        let rooms: Vec<RoomPlan> =
            scaled.iter().flat_map(|(rooms, participants)| vec![room(*participants); *rooms]).collect();
        let kbps = self.video_kbps.unwrap_or(situation.kbps);
        let fps = self.fps.or(situation.fps.filter(|_| self.packets_per_frame.is_none()));
        let full = shape(kbps, fps, self.packets_per_frame, self.payload_bytes)?;
        let video = if self.simulcast { layers(full) } else { vec![full] };
        let audio_bytes = (self.audio_kbps * 1000.0 / 8.0 / MICROPHONE_PPS) as usize;
        ensure!(
            (SILENT_BYTES..=PAYLOAD_MAX_BYTES).contains(&audio_bytes),
            "--audio-kbps: packets must have {SILENT_BYTES} to {PAYLOAD_MAX_BYTES} bytes, not {audio_bytes}"
        );
        Ok(Plan {
            rooms,
            video,
            audio_bytes,
            talkers: self.talkers.unwrap_or(situation.talkers).clamp(0.0, 1.0),
            video_slots: self.video_slots,
            audio_slots: self.audio_slots,
            channel: !self.no_data_channel,
        })
    }
}

impl Plan {
    /// What the participant at a place of a room offers. Those with cameras come first, as do those with microphones.
    pub fn wishes(&self, room: usize, place: usize) -> Wishes {
        let Some(plan) = self.rooms.get(room) else { return Wishes::default() };
        let (camera, microphone) = (place < plan.cameras, place < plan.microphones);
        let (seen, heard) = (plan.cameras - usize::from(camera), plan.microphones - usize::from(microphone));
        Wishes {
            camera,
            microphone,
            simulcast: self.video.len() > 1,
            video_slots: if plan.cameras == 0 { 0 } else { self.video_slots.unwrap_or(seen.min(9)) },
            audio_slots: if plan.microphones == 0 { 0 } else { self.audio_slots.unwrap_or(heard.min(4)) },
            channel: self.channel,
        }
    }

    /// How many of a room speak at a time.
    pub fn talking(&self, room: usize) -> usize {
        self.rooms.get(room).map_or(0, |plan| (plan.microphones as f64 * self.talkers).ceil() as usize)
    }

    /// How many participants see a camera's packet, on average, if everybody sees all they have slots for.
    pub fn video_copies(&self) -> Option<f64> {
        let cameras: usize = self.rooms.iter().map(|room| room.cameras).sum();
        let seen = |room: usize, plan: &RoomPlan, place: usize| {
            let others = plan.cameras - usize::from(place < plan.cameras);
            others.min(self.wishes(room, place).video_slots)
        };
        let copies = self.over_places(seen);
        (cameras > 0 && self.video.len() == 1).then(|| copies as f64 / cameras as f64)
    }

    /// How many participants hear a packet of somebody who speaks, on average, likewise.
    pub fn voice_copies(&self) -> Option<f64> {
        let talking: usize = (0..self.rooms.len()).map(|room| self.talking(room)).sum();
        let heard = |room: usize, _: &RoomPlan, place: usize| {
            // Those with microphones take turns; any of them will do.
            let talking = self.talking(room);
            talking.saturating_sub(usize::from(place < talking)).min(self.wishes(room, place).audio_slots)
        };
        let copies = self.over_places(heard);
        (talking > 0).then(|| copies as f64 / talking as f64)
    }

    fn over_places(&self, each: impl Fn(usize, &RoomPlan, usize) -> usize) -> usize {
        let rooms = self.rooms.iter().enumerate();
        rooms.map(|(room, plan)| (0..plan.participants).map(|place| each(room, plan, place)).sum::<usize>()).sum()
    }

    pub fn participants(&self) -> usize {
        self.rooms.iter().map(|room| room.participants).sum()
    }
}

/// Scales rooms, or the participants of the only one.
fn scale(shapes: &[(usize, usize)], factor: f64) -> Vec<(usize, usize)> {
    let scaled = |count: usize, least: usize| ((count as f64 * factor).round() as usize).max(least);
    match shapes {
        [(1, participants)] => vec![(1, scaled(*participants, 2))],
        _ => shapes.iter().map(|(rooms, participants)| (scaled(*rooms, 1), *participants)).collect(),
    }
}

/// Frames and packets of a bitrate.
fn shape(kbps: f64, fps: Option<f64>, packets: Option<u16>, payload_bytes: usize) -> anyhow::Result<Shape> {
    let least = VIDEO_HEAD_BYTES + MARK_BYTES;
    let range = least..=PAYLOAD_MAX_BYTES;
    ensure!(range.contains(&payload_bytes), "--payload-bytes must be {least} to {PAYLOAD_MAX_BYTES}");
    let bytes_a_second = kbps * 125.0;
    if !(bytes_a_second.is_finite() && bytes_a_second > 0.0) || fps.is_some_and(|fps| fps <= 0.0) {
        bail!("--video-kbps and --fps must be above 0");
    }
    let (fps, packets, payload_bytes) = match (fps, packets) {
        (Some(fps), Some(packets)) => (fps, packets, payload_bytes),
        (None, Some(packets)) => {
            (bytes_a_second / (f64::from(packets.max(1)) * payload_bytes as f64), packets, payload_bytes)
        }
        (fps, None) => {
            let fps = fps.unwrap_or(30.0);
            let frame = bytes_a_second / fps;
            let packets = (frame / payload_bytes as f64).ceil().max(1.0);
            (fps, packets as u16, ((frame / packets) as usize).max(least))
        }
    };
    Ok(Shape { interval_ns: (1e9 / fps) as u64, packets: packets.max(1), payload_bytes })
}

/// Three encodings at the same frame rate.
fn layers(full: Shape) -> Vec<Shape> {
    let frame = f64::from(full.packets) * full.payload_bytes as f64;
    let layer = |share: f64| {
        let packets = (frame * share / full.payload_bytes as f64).ceil().max(1.0);
        let payload_bytes = ((frame * share / packets) as usize).max(VIDEO_HEAD_BYTES + MARK_BYTES);
        Shape { interval_ns: full.interval_ns, packets: packets as u16, payload_bytes }
    };
    SIMULCAST_SHARES.map(layer).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn plan(line: &str) -> Plan {
        let words = std::iter::once("load").chain(line.split_whitespace());
        Line::try_parse_from(words).expect("options").options.plan().expect("a plan")
    }

    #[test]
    fn presets_scale_rooms_or_the_only_room() {
        let rooms = |line| {
            let plan = plan(line);
            (plan.rooms.len(), plan.participants())
        };
        assert_eq!(rooms("--preset bubbles"), (330, 1500));
        assert_eq!(rooms("--preset bubbles --scale 0.1"), (33, 150));
        assert_eq!(rooms("--preset meeting --scale 0.5"), (1, 25));
        assert_eq!(rooms("--preset cosmo --scale 0.001"), (1, 7));
        let stage = plan("--preset stage --scale 0.01");
        assert_eq!(stage.rooms, [RoomPlan { participants: 10, cameras: 1, microphones: 1 }]);
        assert_eq!((stage.wishes(0, 0).video_slots, stage.wishes(0, 1).video_slots), (0, 1));
        let room = RoomPlan { participants: 5, cameras: 5, microphones: 5 };
        assert_eq!(plan("--preset cosmo --rooms 2 --participants 5").rooms, [room, room]);
    }

    #[test]
    fn bitrates_become_frames_and_packets() {
        let shape = |line| plan(line).video[0];
        let a = shape("--video-kbps 2000 --packets-per-frame 5");
        assert_eq!((a.interval_ns, a.packets, a.payload_bytes), (22_000_000, 5, 1100));
        let b = shape("--video-kbps 300 --fps 17");
        assert_eq!((b.packets, b.payload_bytes), (3, 735));
        let thirty = shape("--video-kbps 30 --fps 10");
        assert_eq!((thirty.packets, thirty.payload_bytes), (1, 375));
        let layers = plan("--simulcast --video-kbps 2000 --packets-per-frame 5").video;
        assert_eq!(layers.iter().map(|layer| layer.packets).collect::<Vec<_>>(), [1, 2, 5]);
        assert_eq!(plan("").audio_bytes, 100);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in ["--video-kbps 0", "--payload-bytes 20", "--audio-kbps 1", "--scale 0", "--fps 0"] {
            let words = std::iter::once("load").chain(line.split_whitespace());
            assert!(Line::try_parse_from(words).expect("options").options.plan().is_err(), "{line}");
        }
    }
}
