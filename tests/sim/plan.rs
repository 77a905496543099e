//! What happens in a scenario of the sweep: weighted verbs drawn from the seed. Chaos, then healing, then demands.

use std::time::Duration;

use serde_json::json;
use stube::command::Grants;

use crate::client::Change;
use crate::forwarding::{check_accounts, check_forwarding};
use crate::liveness::check_liveness;
use crate::member::{Joiner, Said, Want};
use crate::net::Conditions;
use crate::rng::Rng;
use crate::world::{DEPARTURE_TIMEOUT, RESTART_TIMEOUT, World};

const ROOMS: usize = 2;
const MOST_MEMBERS: usize = 8;
/// How long a network that has healed may take until everything flows.
const LIVENESS: Duration = Duration::from_secs(10);
/// How long str0m's ICE-lite side waits for checks.
const ICE_TIMEOUT: Duration = Duration::from_secs(15);

/// The verbs and how often each is drawn.
const VERBS: [(Verb, u32); 15] = [
    (Verb::Join, 14),
    (Verb::Leave, 6),
    (Verb::Crash, 2),
    (Verb::Rejoin, 3),
    (Verb::Remove, 1),
    (Verb::Mute, 14),
    (Verb::Publish, 5),
    (Verb::Unpublish, 5),
    (Verb::Want, 10),
    (Verb::Chat, 12),
    (Verb::Link, 10),
    (Verb::Partition, 4),
    (Verb::Heal, 6),
    (Verb::Rebind, 5),
    (Verb::RestartIce, 5),
];

#[derive(Debug, Clone, Copy)]
enum Verb {
    Join,
    Leave,
    Crash,
    Rejoin,
    Remove,
    Mute,
    Publish,
    Unpublish,
    Want,
    Chat,
    Link,
    Partition,
    Heal,
    Rebind,
    RestartIce,
}

/// A scenario of the sweep.
pub struct Plan {
    pub world: World,
    rng: Rng,
}

impl Plan {
    pub fn new(world: World) -> Self {
        Self { rng: Rng::new(world.seed, "plan"), world }
    }

    /// Plays the whole scenario.
    pub fn play(&mut self) {
        self.world.busy = self.rng.percent(70);
        for _ in 0..self.rng.within(4..7) {
            self.act(Verb::Join);
        }
        let chaos = self.rng.millis(6000..9000);
        while self.world.now - self.world.start < chaos {
            let pause = self.rng.millis(20..350);
            self.world.run_for(pause);
            let weights = VERBS.map(|(_, weight)| weight);
            let verb = VERBS[self.rng.weighted(&weights)].0;
            self.act(verb);
        }
        self.heal();
        self.world.run_for(LIVENESS);
        check_liveness(&mut self.world);
        self.end();
    }

    /// Everyone goes, one way or the other; then nothing may be left.
    pub fn end(&mut self) {
        for index in 0..self.world.members.len() {
            match self.rng.within(0..4) {
                0 => self.world.crash(index),
                1 => self.world.leave(index, true, false),
                2 => self.world.leave(index, false, true),
                _ => self.world.leave(index, true, true),
            }
        }
        self.world.run_for(ICE_TIMEOUT + RESTART_TIMEOUT + DEPARTURE_TIMEOUT + Duration::from_secs(5));
        check_accounts(&mut self.world);
        check_forwarding(&mut self.world);
        self.world.check_empty();
    }

    fn heal(&mut self) {
        for index in 0..self.world.members.len() {
            self.world.partition(index, false);
            let host = self.world.members[index].host;
            let (up, down) = self.world.net.conditions(host);
            let healed = |conditions: Conditions| Conditions { delay: conditions.delay, ..Conditions::CLEAN };
            self.world.net.set_conditions(host, healed(up), healed(down));
        }
    }

    /// One of those who are in and connected.
    fn someone(&mut self) -> Option<usize> {
        let members = self.world.members.iter().enumerate();
        let present: Vec<usize> = members.filter(|(_, member)| member.is_present()).map(|(index, _)| index).collect();
        self.rng.pick(&present)
    }

    fn act(&mut self, verb: Verb) {
        self.world.trace.event(self.world.now - self.world.start, 0, &format!("{verb:?}"));
        match verb {
            Verb::Join => self.join(None),
            Verb::Publish => self.publish(),
            _ => {
                if let Some(index) = self.someone() {
                    self.act_on(verb, index);
                }
            }
        }
    }

    fn act_on(&mut self, verb: Verb, index: usize) {
        self.world.trace.event(self.world.now - self.world.start, index, "it is about this one");
        match verb {
            Verb::Leave => {
                let closes = self.rng.percent(50);
                let asks = !closes || self.rng.percent(50);
                self.world.leave(index, closes, asks);
            }
            Verb::Crash => self.world.crash(index),
            Verb::Rejoin => self.join(Some(index)),
            Verb::Remove => self.world.remove(index),
            Verb::Mute => {
                let publications = self.world.members[index].client.publications.len();
                if publications > 0 {
                    let number = self.rng.within(0..publications as u64) as usize;
                    let muted = self.world.members[index].client.publications[number].muted;
                    self.world.mute(index, number, !muted);
                }
            }
            Verb::Unpublish => self.unpublish(index),
            Verb::Want => self.want(index),
            Verb::Chat => self.chat(index),
            Verb::Link => {
                let (up, down) = (Conditions::troubled(&mut self.rng), Conditions::troubled(&mut self.rng));
                self.world.net.set_conditions(self.world.members[index].host, up, down);
            }
            Verb::Partition => self.world.partition(index, true),
            Verb::Heal => {
                for index in 0..self.world.members.len() {
                    self.world.partition(index, false);
                }
            }
            Verb::Rebind => self.world.net.rebind(self.world.members[index].host),
            Verb::RestartIce => {
                self.world.offer(index, Change::IceRestart);
            }
            Verb::Join | Verb::Publish => unreachable!("not about someone"),
        }
    }

    fn join(&mut self, again: Option<usize>) {
        let running = self.world.members.iter().filter(|member| member.is_running()).count();
        if running >= MOST_MEMBERS && again.is_none() {
            return;
        }
        let rng = &mut self.rng;
        let joiner = Joiner {
            identity: again.map(|index| self.world.members[index].identity.clone()),
            room: again.map_or(rng.within(0..ROOMS as u64) as usize, |index| self.world.members[index].room),
            grants: Grants { can_subscribe: !rng.percent(5), can_publish_data: !rng.percent(5), ..Grants::default() },
            ipv6: rng.percent(30),
            microphone: rng.percent(90),
            camera: rng.percent(80),
            simulcast: rng.percent(30),
            adaptive: None,
            audio_slots: if rng.percent(85) { 8 } else { rng.within(0..3) as usize },
            video_slots: if rng.percent(80) { 8 } else { rng.within(0..3) as usize },
        };
        let trouble = rng.percent(60);
        let (up, down) = match trouble {
            true => (Conditions::troubled(rng), Conditions::troubled(rng)),
            false => (Conditions::CLEAN, Conditions::CLEAN),
        };
        self.world.join(&joiner, up, down);
    }

    /// Publishes a screen, or again what was taken back.
    fn publish(&mut self) {
        let Some(index) = self.someone() else { return };
        let publications = &self.world.members[index].client.publications;
        let taken_back = publications.iter().find(|publication| !publication.active).map(|publication| publication.mid);
        let videos = publications.iter().filter(|publication| publication.kind.is_video()).count();
        match taken_back {
            Some(mid) => self.world.offer(index, Change::Republish(mid)),
            // Without a camera the first video m-line would be one.
            None if videos == 1 => self.world.offer(index, Change::PublishScreen),
            None => false,
        };
    }

    fn unpublish(&mut self, index: usize) {
        let publications = &self.world.members[index].client.publications;
        let active: Vec<_> = publications
            .iter()
            .filter(|publication| publication.active && !publication.muted)
            .map(|publication| publication.mid)
            .collect();
        if let Some(mid) = self.rng.pick(&active) {
            self.world.offer(index, Change::Unpublish(mid));
        }
    }

    /// Wants some of what there is, and once in a while something there is not.
    fn want(&mut self, index: usize) {
        let member = &self.world.members[index];
        let own = self.world.rooms[member.room];
        let told = member.client.channel.others.values().flat_map(|told| &told.tracks);
        let tracks: Vec<_> = told.map(|(sid, track)| (sid.clone(), track.kind.clone())).collect();
        let some = |kind: &str, rng: &mut Rng| -> Vec<String> {
            let of_kind = tracks.iter().filter(|(_, of)| of == kind);
            of_kind.filter(|_| rng.percent(70)).map(|(sid, _)| sid.clone()).collect()
        };
        let mut want = Want { video: some("video", &mut self.rng), audio: None };
        if self.rng.percent(30) {
            want.audio = Some(some("audio", &mut self.rng));
        }
        if self.rng.percent(10) {
            want.video.push(own.to_string().replace("RM_", "TR_"));
        }
        let video: Vec<_> = want.video.iter().map(|sid| json!({"track": sid, "height": 360})).collect();
        let message = match &want.audio {
            Some(audio) => json!({"type": "want", "video": video, "audio": audio}),
            None => json!({"type": "want", "video": video, "audio": "auto"}),
        };
        if self.world.with(index, |member, now, faults| member.client.say(&message, now, faults)) {
            self.world.members[index].want = Some(want);
        }
    }

    fn chat(&mut self, index: usize) {
        let number = self.rng.next_u64() >> 12;
        let member = &self.world.members[index];
        let number = (member.said.len() as u64) << 52 | number;
        let others: Vec<String> = member.client.channel.others.values().map(|told| told.identity.clone()).collect();
        let to: Vec<String> = self.rng.percent(30).then(|| self.rng.pick(&others)).flatten().into_iter().collect();
        let data = json!({"member": index, "number": number});
        let message = json!({"type": "message", "topic": "chat", "data": data, "to": to});
        let said = self.world.with(index, |member, now, faults| member.client.say(&message, now, faults));
        let at = self.world.now;
        let member = &mut self.world.members[index];
        if said && member.grants.can_publish_data {
            member.said.push(Said { at, number, to });
        }
    }
}
