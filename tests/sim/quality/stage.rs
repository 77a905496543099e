//! A room for the scenarios of quality: publishers, viewers, shaped links, and a look at everything every 100 ms.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::encoding::Ladder;
use crate::member::{Joiner, mobile_address};
use crate::net::Conditions;
use crate::shaper::Link;
use crate::stamp::TrackKey;
use crate::viewer::{Shown, Viewer};
use crate::world::World;

/// How often the stage looks.
const LOOK: Duration = Duration::from_millis(100);
/// A picture that stands longer is frozen, and its layer no longer counts as shown.
const FROZEN: f64 = 0.5;
/// How long a layer has to hold to count as reached, and how much of that time it has to be shown.
const HOLD: f64 = 2.0;
const HELD_SHARE: f64 = 0.9;

/// Part of a run, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    pub from: f64,
    pub to: f64,
}

impl Window {
    pub const fn new(from: f64, to: f64) -> Self {
        Self { from, to }
    }

    pub fn seconds(self) -> f64 {
        self.to - self.from
    }
}

/// What could be seen at one look.
#[derive(Debug, Default)]
pub struct Look {
    pub at: f64,
    /// In bit/s, by member.
    pub estimates: BTreeMap<usize, u64>,
    /// Tracks that a member's slots say are paused.
    pub paused: BTreeSet<(usize, TrackKey)>,
}

/// The room.
pub struct Stage {
    pub world: World,
    pub looks: Vec<Look>,
    /// Height of a viewer's tiles, and the tracks it has last said it wants.
    wishes: BTreeMap<usize, (u16, Vec<String>)>,
}

/// The server's estimate of a member's downlink, in bit/s.
fn estimate(world: &World, member: usize) -> Option<u64> {
    // The engine does not tell yet. Then: `world.engine.estimate_bps(world.members[member].session)`.
    let _ = (world, member);
    None
}

impl Stage {
    pub fn new(seed: u64, start: Instant) -> Self {
        Self { world: World::new(seed, 1, start), looks: Vec::new(), wishes: BTreeMap::new() }
    }

    /// Someone with a microphone and an adaptive camera, who watches nobody.
    pub fn publisher(&mut self, ladder: Ladder, up: Link) -> usize {
        let simulcast = ladder == Ladder::Vp8;
        let joiner = Joiner { simulcast, ..Self::joiner(ladder) };
        self.join(&joiner, up, Link::CLEAN)
    }

    /// Someone who watches so many others in tiles of this height, and says nothing.
    pub fn viewer(&mut self, ladder: Ladder, down: Link, slots: usize, height: u16) -> usize {
        self.viewer_behind(ladder, Link::CLEAN, down, slots, height)
    }

    pub fn viewer_behind(&mut self, ladder: Ladder, up: Link, down: Link, slots: usize, height: u16) -> usize {
        let joiner = Joiner {
            microphone: false,
            camera: false,
            video_slots: slots,
            audio_slots: slots.min(2),
            ..Self::joiner(ladder)
        };
        let viewer = self.join(&joiner, up, down);
        self.wishes.insert(viewer, (height, Vec::new()));
        viewer
    }

    fn joiner(ladder: Ladder) -> Joiner {
        Joiner { adaptive: Some(ladder), audio_slots: 0, video_slots: 0, ..Joiner::default() }
    }

    fn join(&mut self, joiner: &Joiner, up: Link, down: Link) -> usize {
        let index = self.world.join(joiner, Conditions::CLEAN, Conditions::CLEAN);
        self.reshape(index, up, down);
        self.run_for(LOOK);
        index
    }

    /// Gives a member another link.
    pub fn reshape(&mut self, member: usize, up: Link, down: Link) {
        let host = self.world.members[member].host;
        self.world.net.shape(host, up, down, self.world.start);
    }

    /// A member goes over to a mobile network.
    pub fn go_mobile(&mut self, member: usize, up: Link, down: Link) {
        self.reshape(member, up, down);
        self.world.net.move_to(self.world.members[member].host, mobile_address(member));
    }

    fn run_for(&mut self, span: Duration) {
        let elapsed = self.world.now - self.world.start;
        self.run_until(elapsed + span);
    }

    /// Runs until so much time has passed since the start.
    pub fn run_until(&mut self, elapsed: Duration) {
        while self.world.now - self.world.start < elapsed {
            let next = (self.world.now - self.world.start + LOOK).min(elapsed);
            self.world.run_until(next);
            self.wish();
            self.look();
        }
    }

    /// Viewers want every camera they have heard of.
    fn wish(&mut self) {
        for (member, (height, said)) in &mut self.wishes {
            let told = self.world.members[*member].client.channel.others.values().flat_map(|told| &told.tracks);
            let tracks: Vec<String> =
                told.filter(|(_, track)| track.kind == "video").map(|(sid, _)| sid.clone()).collect();
            if tracks == *said {
                continue;
            }
            let video: Vec<_> = tracks.iter().map(|sid| json!({"track": sid, "height": *height})).collect();
            let want = json!({"type": "want", "video": video, "audio": "auto"});
            if self.world.with(*member, |member, now, faults| member.client.say(&want, now, faults)) {
                *said = tracks;
            }
        }
    }

    fn look(&mut self) {
        let mut look = Look { at: (self.world.now - self.world.start).as_secs_f64(), ..Look::default() };
        for member in self.wishes.keys().copied() {
            look.estimates.extend(estimate(&self.world, member).map(|bps| (member, bps)));
            let slots = self.world.members[member].client.channel.slots.values();
            let paused = slots.filter(|slot| slot.state == "paused").filter_map(|slot| slot.track.as_ref());
            let tracks = paused.filter_map(|sid| self.world.model.tracks.get(sid));
            look.paused.extend(tracks.map(|track| (member, *track)));
        }
        self.looks.push(look);
    }

    /// The camera of a publisher.
    pub fn camera(&self, publisher: usize) -> TrackKey {
        let publications = &self.world.members[publisher].client.publications;
        let camera = publications.iter().find(|publication| publication.kind.is_video());
        camera.unwrap_or_else(|| panic!("seed {}: member {publisher} has no camera", self.world.seed)).track
    }

    /// All slots of a member, of video or of audio.
    pub fn viewers(&self, member: usize, video: bool) -> impl Iterator<Item = &Viewer> {
        let slots = self.world.members[member].client.slots.iter();
        slots.filter(move |slot| slot.kind.is_video() == video).filter_map(|slot| slot.viewer.as_ref())
    }

    /// What a member has seen of a publisher's camera.
    pub fn watch(&self, member: usize, publisher: usize) -> Watch {
        let track = self.camera(publisher);
        let all = self.viewers(member, true).flat_map(|viewer| &viewer.shown);
        let mut shown: Vec<Shown> = all.filter(|shown| shown.track == track).copied().collect();
        shown.sort_by_key(|shown| shown.at);
        let start = self.world.start;
        Watch { shown: shown.into_iter().map(|shown| ((shown.at - start).as_secs_f64(), shown)).collect() }
    }

    /// The median of the server's estimates in a window, in bit/s.
    pub fn estimate(&self, member: usize, window: Window) -> Option<f64> {
        let looks = self.looks.iter().filter(|look| (window.from..window.to).contains(&look.at));
        let mut estimates: Vec<u64> = looks.filter_map(|look| look.estimates.get(&member)).copied().collect();
        estimates.sort_unstable();
        estimates.get(estimates.len() / 2).map(|bps| *bps as f64)
    }
}

/// The pictures of one camera that one member has seen, by second.
#[derive(Debug)]
pub struct Watch {
    pub shown: Vec<(f64, Shown)>,
}

impl Watch {
    fn within(&self, window: Window) -> impl Iterator<Item = &(f64, Shown)> {
        self.shown.iter().filter(move |(at, _)| (window.from..window.to).contains(at))
    }

    /// How long each height stood in a window, in seconds; 0 is nothing.
    pub fn heights(&self, window: Window) -> BTreeMap<u16, f64> {
        let mut heights = BTreeMap::new();
        let mut rest = window.seconds();
        for (index, (at, shown)) in self.shown.iter().enumerate() {
            let next = self.shown.get(index + 1).map_or(f64::INFINITY, |(next, _)| *next).min(at + FROZEN);
            let stood = next.min(window.to) - at.max(window.from);
            if stood > 0.0 {
                *heights.entry(shown.height()).or_default() += stood;
                rest -= stood;
            }
        }
        heights.insert(0, rest.max(0.0));
        heights
    }

    /// The share of a window in which at least this height stood.
    pub fn share(&self, height: u16, window: Window) -> f64 {
        self.heights(window).range(height..).map(|(_, seconds)| seconds).sum::<f64>() / window.seconds()
    }

    /// The height that stood longest in a window.
    pub fn usual_height(&self, window: Window) -> u16 {
        let heights = self.heights(window).into_iter();
        heights.max_by(|one, other| one.1.total_cmp(&other.1)).map_or(0, |(height, _)| height)
    }

    /// Pictures a second.
    pub fn rate(&self, window: Window) -> f64 {
        self.within(window).count() as f64 / window.seconds()
    }

    /// The longest time in a window without a new picture.
    pub fn longest_gap(&self, window: Window) -> f64 {
        let times = self.within(window).map(|(at, _)| *at);
        longest_gap(times, window)
    }

    /// Switches to a higher and to a lower layer in a window.
    pub fn switches(&self, window: Window) -> (usize, usize) {
        let steps: Vec<usize> = self.within(window).map(|(_, shown)| shown.step).collect();
        let count = |turns: fn(&[usize]) -> bool| steps.windows(2).filter(|pair| turns(pair)).count();
        (count(|pair| pair[0] < pair[1]), count(|pair| pair[0] > pair[1]))
    }

    /// The first second from `from` on in which at least this height stands, however short.
    pub fn first(&self, height: u16, from: f64) -> Option<f64> {
        self.shown.iter().find(|(at, shown)| *at >= from && shown.height() >= height).map(|(at, _)| *at)
    }

    /// The first second from `from` on from which at least this height holds.
    pub fn held(&self, height: u16, from: f64) -> Option<f64> {
        let candidates = self.shown.iter().filter(|(at, shown)| *at >= from && shown.height() >= height);
        let mut times = candidates.map(|(at, _)| *at);
        times.find(|at| self.share(height, Window::new(*at, at + HOLD)) >= HELD_SHARE)
    }
}

/// The longest time in a window without one of these, which are in order.
pub fn longest_gap(times: impl Iterator<Item = f64>, window: Window) -> f64 {
    let mut last = window.from;
    let mut longest: f64 = 0.0;
    for time in times.chain([window.to]) {
        longest = longest.max(time - last);
        last = time;
    }
    longest
}
