// The configuration is read anew while two people are in a call, who must not notice: by a signal, from the admin
// listener, and with a file that is not valid.

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { before, describe, test } from 'node:test';
import { eventually, pause } from './harness/eventually.js';
import { Peer, assertFullMesh } from './harness/peer.js';
import { useWorld } from './harness/world.js';

/** So long the call is watched after what a test does; the fake microphone beeps once a second. */
const WATCH_MS = 2_500;
const LOOK_MS = 100;
/** Of the frames and packets that are sent meanwhile at least so many are decoded and received. */
const SHARE_MIN = 0.8;
/** Nor may picture or sound stand still for so long; whoever joins anew takes longer. On a busy machine browsers stutter. */
const STILL_MS = 2_000;
/** Of what is no silence; as in harness/peer.js. */
const ENERGY_MIN = 1e-4;

const KEY = ['devkey', 'devsecret-devsecret-devsecret-dev'];
const OTHER = ['other', 'another-secret-another-secret-another'];
const WITH_OTHER = ['[keys]\n', `[keys]\n${OTHER[0]} = "${OTHER[1]}"\n`];

describe('a reload during a call', () => {
  const world = useWorld('reload');
  /** The configuration's text that the server was started with. */
  let first;
  let room;
  let people;
  let sessions;

  before(async () => {
    first = readFileSync(world.server.config, 'utf8');
    room = await world.server.room('reloaded');
    people = [await Peer.join(world, room, 'ada'), await Peer.join(world, room, 'linus')];
    await assertFullMesh(people);
    sessions = await Promise.all(people.map(sessionOf));
  });

  test('by SIGHUP brings a key, its quota and the log\'s level', { timeout: 60_000 }, unnoticed(async () => {
    assert.equal((await allocate(OTHER, 'early')).code, 'invalid_credentials');
    assert.doesNotMatch(log(), / DEBUG /);
    write([WITH_OTHER, ['level = "info"', 'level = "debug"']], '[quota.other]\nmax_rooms = 1\n');
    await hangUp(/ INFO .*the configuration was read anew.*keys, quota, log/);
    assert.equal((await allocate(OTHER, 'one')).status, 201);
    assert.equal((await allocate(OTHER, 'two')).code, 'quota_exceeded');
    await eventually('the log says more', () => / DEBUG /.test(log()));
  }));

  test('from the admin listener takes them back, and limits the room of the call', { timeout: 60_000 }, unnoticed(async () => {
    // How many are heard at once waits for a restart, and is said to.
    write([['max_participants_per_room = 0', 'max_participants_per_room = 2'], ['loudest = 4', 'loudest = 1']]);
    const { status, changed, needs_restart: waiting } = await reload();
    assert.deepEqual([status, changed, waiting], [200, ['keys', 'quota', 'log'], ['media']]);
    assert.equal((await allocate(OTHER, 'three')).code, 'invalid_credentials');
    await assertFull();
    // What was logged before the reload has been read by now.
    const { length } = log();
    assert.equal((await allocate(OTHER, 'four')).code, 'invalid_credentials');
    await pause(500);
    assert.doesNotMatch(log().slice(length), / DEBUG /);
  }));

  test('changes nothing if the file is not valid, and says why', { timeout: 60_000 }, unnoticed(async () => {
    write([WITH_OTHER, ['max_participants = 100', 'max_participants = -1']]);
    await hangUp(/ ERROR .*not valid; nothing has changed.*rooms\.max_participants/);
    const { status, code, detail } = await reload();
    assert.deepEqual([status, code], [422, 'invalid_config']);
    assert.match(detail, /rooms\.max_participants: /);
    assert.equal((await allocate(OTHER, 'five')).code, 'invalid_credentials');
    assert.equal((await allocate(KEY, 'six')).status, 201);
    await assertFull();
  }));

  test('that lifts the limit lets a third person in', { timeout: 60_000 }, unnoticed(async () => {
    write([]);
    const { status, changed, needs_restart: waiting } = await reload();
    assert.deepEqual([status, changed, waiting], [200, ['quota'], []]);
    const grace = await Peer.join(world, room, 'grace');
    await Promise.all(people.flatMap((peer) => [peer.hears('grace', 'camera'), grace.hears(peer.identity, 'camera')]));
    await grace.leave();
  }));

  /** The file as it was at the start, but for these changes and with more at its end. */
  function write(changes, more = '') {
    let text = first;
    for (const [old, changed] of changes) {
      assert.equal(text.split(old).length, 2, `"${old}" is there once`);
      text = text.replace(old, changed);
    }
    writeFileSync(world.server.config, `${text}\n${more}`);
  }

  function log() {
    return readFileSync(world.server.logPath, 'utf8');
  }

  /** SIGHUP; waits until the log says what came of it. */
  async function hangUp(said) {
    const { length } = log();
    world.server.hangUp();
    await eventually(`the log says ${said}`, () => said.test(log().slice(length)));
  }

  /** Asks the admin listener for a reload: the status, and what it answers. */
  async function reload() {
    const response = await fetch(`${world.server.admin}/v1/node/reload`, {
      method: 'POST', headers: { 'Content-Type': 'application/json' }, body: '{}',
    });
    return { status: response.status, ...await response.json() };
  }

  /** Allocates a room as an API key: the status, and what the server answers. */
  async function allocate(key, name) {
    const response = await fetch(`${world.server.base}/v1/rooms`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', Authorization: `Basic ${Buffer.from(key.join(':')).toString('base64')}` },
      body: JSON.stringify({ name }),
    });
    return { status: response.status, ...await response.json() };
  }

  /** A third person is refused. */
  async function assertFull() {
    await assert.rejects(Peer.join(world, room, 'grace'), /max_participants_per_room is used up: 2 of 2/);
  }

  /** A test during which, from its begin to a while after its end, both go on as if nothing had been. */
  function unnoticed(body) {
    return async (context) => {
      for (const line of await watched(people, body)) context.diagnostic(line);
      assert.deepEqual(await Promise.all(people.map(sessionOf)), sessions, 'the same sessions over the same connections');
    };
  }

  /** What becomes another when somebody joins anew or restarts ICE. */
  async function sessionOf(peer) {
    const { participants } = await world.server.api('GET', `/v1/rooms/${room}/participants`);
    const { sid, joined_at: joinedAt, state } = participants.find(({ identity }) => identity === peer.identity);
    const [me, states, ufrag, ports] = await Promise.all([peer.do('me'), peer.do('states'), peer.do('localUfrag'), peer.ports()]);
    return { sid, joinedAt, state, me, states, ufrag, ports };
  }
});

/** Fails unless two people went on sending to and getting from each other meanwhile; what was seen of it, in words. */
async function watched(people, body) {
  const looks = [];
  let isOver = false;
  const look = async () => {
    for (let isLast = false; !isLast; await pause(LOOK_MS)) {
      isLast = isOver;
      looks.push(await Promise.all(people.map((peer, place) => countsOf(peer, people[1 - place]))));
    }
  };
  const looking = look();
  // Thrown below, also if it comes before the body's end.
  looking.catch(() => {});
  try {
    await body();
    await pause(WATCH_MS);
  } finally {
    isOver = true;
  }
  await looking;
  return people.flatMap(({ identity }, place) => {
    const [sent, got] = [looks.map((counts) => counts[1 - place].sent), looks.map((counts) => counts[place].got)];
    const energy = got.at(-1).energy - got[0].energy;
    assert.ok(energy > ENERGY_MIN, `${identity} hears nothing: ${energy}`);
    return ['frames', 'packets'].map((what) => {
      const [grown, expected] = [got, sent].map((counts) => counts.at(-1)[what] - counts[0][what]);
      const [seconds, still] = [(got.at(-1).at - got[0].at) / 1_000, longestStill(got, what)];
      const line = `${identity}: ${grown} of ${expected} ${what} in ${seconds.toFixed(1)} s, stood still for ${Math.round(still)} ms`;
      assert.ok(expected > seconds, `too few were sent: ${line}`);
      assert.ok(grown >= SHARE_MIN * expected && still < STILL_MS, line);
      return line;
    });
  });
}

/** What one sends, and gets from the other: frames of the camera, packets and loudness of the microphone. */
async function countsOf(peer, other) {
  const [at, reports, camera, microphone] = await Promise.all([
    peer.do('now'), peer.reports('outbound-rtp'), peer.flowOf(other.identity, 'camera'), peer.flowOf(other.identity, 'microphone'),
  ]);
  const [video, audio] = ['video', 'audio'].map((kind) => reports.find((report) => report.kind === kind));
  assert.ok(video && audio && camera && microphone, `${peer.identity} sends nothing, or has ${other.identity} in no slot`);
  return {
    sent: { frames: video.framesEncoded, packets: audio.packetsSent },
    got: { at, frames: camera.frames, packets: microphone.packets, energy: microphone.energy },
  };
}

/** The longest time without a new one, in milliseconds. */
function longestStill(counts, what) {
  let longest = 0;
  let since = counts[0];
  for (const count of counts) {
    if (count[what] !== since[what]) since = count;
    longest = Math.max(longest, count.at - since.at);
  }
  return longest;
}
