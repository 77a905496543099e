//! A room for the scenarios of quality: publishers, viewers, shaped links, and a look at everything every 100 ms.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use serde_json::json;

use super::table::said;
use super::watch::{Watch, Window};
use crate::encoding::{Encoding, Ladder};
use crate::member::{Joiner, mobile_address};
use crate::net::Conditions;
use crate::shaper::{Carried, Link};
use crate::source::Publication;
use crate::stamp::TrackKey;
use crate::viewer::{Shown, Viewer};
use crate::world::World;

/// How often the stage looks.
const LOOK: Duration = Duration::from_millis(100);

/// What could be seen at one look.
#[derive(Debug, Default)]
pub struct Look {
    pub at: f64,
    /// In bit/s, by member.
    pub estimates: BTreeMap<usize, u64>,
    /// What the viewers' downlinks have carried so far.
    pub carried: BTreeMap<usize, Carried>,
    /// Which layer a member's slots say flows of a track.
    pub told: BTreeMap<(usize, TrackKey), usize>,
    /// Packets that each encoding of each camera has sent so far.
    pub sent: BTreeMap<TrackKey, Vec<u32>>,
    /// Tracks that a member's slots say are paused.
    pub paused: BTreeSet<(usize, TrackKey)>,
}

/// The room.
pub struct Stage {
    pub world: World,
    pub looks: Vec<Look>,
    wishes: BTreeMap<usize, Wish>,
}

/// A tile: track, height in pixels, priority.
type Tile = (String, u16, i64);

/// What a viewer wants.
#[derive(Debug, Default)]
struct Wish {
    /// Of its tiles.
    height: u16,
    /// Who stands in a large tile, before all others.
    favourite: Option<usize>,
    /// The tiles it has last asked for.
    said: Vec<Tile>,
}

/// The server's estimate of a member's downlink, in bit/s.
fn estimate(world: &World, member: usize) -> Option<u64> {
    Some(world.engine().estimate(world.members[member].session)?.as_bps())
}

impl Stage {
    pub fn new(seed: u64, start: Instant) -> Self {
        Self { world: World::new(seed, 1, start), looks: Vec::new(), wishes: BTreeMap::new() }
    }

    /// Someone with a microphone and an adaptive camera, who watches nobody.
    pub fn publisher(&mut self, ladder: Ladder, up: Link) -> usize {
        let joiner = Joiner { simulcast: ladder.is_simulcast(), ..Self::joiner(ladder) };
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
        self.wishes.insert(viewer, Wish { height, ..Wish::default() });
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
            let world = &mut self.world;
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| world.run_until(next))) {
                let (seed, at) = (self.world.seed, self.world.now - self.world.start);
                panic!("seed {seed}, at {at:?}: {}", said(panic.as_ref()));
            }
            self.wish();
            self.look();
        }
    }

    /// A viewer's tiles have another height from now on.
    pub fn resize(&mut self, viewer: usize, height: u16) {
        self.wishes.entry(viewer).or_default().height = height;
        self.wish();
    }

    /// A viewer puts somebody into a large tile, before all others.
    pub fn favour(&mut self, viewer: usize, publisher: usize) {
        self.wishes.entry(viewer).or_default().favourite = Some(publisher);
        self.wish();
    }

    /// A publisher's browser stops an encoding or takes it up again, as it does when its processor or uplink is full.
    pub fn set_sending(&mut self, publisher: usize, rid: &str, sends: bool) {
        let publications = self.world.members[publisher].client.publications.iter_mut();
        publications.for_each(|publication| publication.set_sending(rid, sends));
    }

    /// Changes how a publisher's browser encodes.
    pub fn encode(&mut self, publisher: usize, change: impl Fn(&mut Encoding)) {
        let publications = self.world.members[publisher].client.publications.iter_mut();
        publications.flat_map(Publication::encodings).for_each(change);
    }

    /// How often a publisher has been asked for a key frame in a window.
    pub fn asked_of(&self, publisher: usize, window: Window) -> usize {
        let second = |at: Instant| (at - self.world.start).as_secs_f64();
        let asked = self.world.members[publisher].client.asked.iter().map(|asked| second(asked.sent_at));
        asked.filter(|at| (window.from..window.to).contains(at)).count()
    }

    /// Viewers want every camera they have heard of.
    fn wish(&mut self) {
        for (member, wish) in &mut self.wishes {
            let told = self.world.members[*member].client.channel.others.values().flat_map(|told| &told.tracks);
            let cameras = told.filter(|(_, track)| track.kind == "video").map(|(sid, _)| sid);
            let tile = |sid: &String| {
                let owner = self.world.model.tracks.get(sid).map(|track| track.client);
                let favoured = owner.is_some() && owner == wish.favourite;
                if favoured { (sid.clone(), 720, 10) } else { (sid.clone(), wish.height, 0) }
            };
            let tiles: Vec<Tile> = cameras.map(tile).collect();
            if tiles == wish.said {
                continue;
            }
            let video = tiles
                .iter()
                .map(|(track, height, priority)| json!({"track": track, "height": height, "priority": priority}));
            let want = json!({"type": "want", "video": video.collect::<Vec<_>>(), "audio": "auto"});
            if self.world.with(*member, |member, now, faults| member.client.say(&want, now, faults)) {
                wish.said = tiles;
            }
        }
    }

    fn look(&mut self) {
        let mut look = Look { at: (self.world.now - self.world.start).as_secs_f64(), ..Look::default() };
        for member in self.wishes.keys().copied() {
            look.estimates.extend(estimate(&self.world, member).map(|bps| (member, bps)));
            look.carried.insert(member, self.world.net.carried_down(self.world.members[member].host));
            for slot in self.world.members[member].client.channel.slots.values() {
                let track = slot.track.as_ref().and_then(|sid| self.world.model.tracks.get(sid));
                let Some(key) = track.map(|track| (member, *track)) else { continue };
                look.told.extend(slot.step.map(|step| (key, step)));
                if slot.state == "paused" {
                    look.paused.insert(key);
                }
            }
        }
        let publications = self.world.members.iter().flat_map(|member| &member.client.publications);
        for camera in publications.filter(|publication| publication.kind.is_video()) {
            look.sent.insert(camera.track, camera.layers.iter().map(|layer| layer.serial).collect());
        }
        self.looks.push(look);
    }

    /// The camera of a publisher.
    pub fn camera(&self, publisher: usize) -> TrackKey {
        let publications = &self.world.members[publisher].client.publications;
        let camera = publications.iter().find(|publication| publication.kind.is_video());
        camera
            .unwrap_or_else(|| panic!("seed {}, at any time: member {publisher} has no camera", self.world.seed))
            .track
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
        // Of the last picture, spatial layers may still be underway.
        shown.pop();
        let start = self.world.start;
        Watch { shown: shown.into_iter().map(|shown| ((shown.at - start).as_secs_f64(), shown)).collect() }
    }

    /// When a member has heard something, by second.
    pub fn heard(&self, member: usize) -> Vec<f64> {
        let start = self.world.start;
        let all = self.viewers(member, false).flat_map(|viewer| &viewer.arrivals);
        let mut times: Vec<f64> = all.map(|at| (*at - start).as_secs_f64()).collect();
        times.sort_by(f64::total_cmp);
        times
    }

    /// What a viewer's downlink has carried in a window.
    pub fn carried(&self, member: usize, window: Window) -> Carried {
        let at = |second: f64| {
            let look = self.looks.iter().rev().find(|look| look.at <= second);
            look.and_then(|look| look.carried.get(&member)).copied().unwrap_or_default()
        };
        at(window.to).since(at(window.from))
    }

    /// The viewers.
    pub fn audience(&self) -> impl Iterator<Item = usize> {
        self.wishes.keys().copied()
    }

    /// The median of the server's estimates in a window, in bit/s.
    pub fn estimate(&self, member: usize, window: Window) -> Option<f64> {
        let looks = self.looks.iter().filter(|look| (window.from..window.to).contains(&look.at));
        let mut estimates: Vec<u64> = looks.filter_map(|look| look.estimates.get(&member)).copied().collect();
        estimates.sort_unstable();
        estimates.get(estimates.len() / 2).map(|bps| *bps as f64)
    }
}
