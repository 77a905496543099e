// What is counted and kept of calls, with real clients: records, sums, moves, erasure, a crash.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { eventually, pause } from './harness/eventually.js';
import { Peer } from './harness/peer.js';
import { useWorld } from './harness/world.js';

const CHECKPOINT_S = 1;
/** A pseudonym that stands nowhere else. */
const CANARY = 'canary-7f3a9c';

describe('the ledger', () => {
  const world = useWorld('ledger', { STUBE__LEDGER__CHECKPOINT_S: `${CHECKPOINT_S}`, STUBE__SHARD__COUNT: '2' });
  let peers = [];
  after(() => Promise.all(peers.map((peer) => peer.page.close())));

  const join2 = async (room, ...names) => {
    const joined = [];
    for (const name of names) joined.push(await Peer.join(world, room, name));
    peers.push(...joined);
    return joined;
  };
  const records = async (query) => (await world.server.api('GET', `/v1/records?${query}`)).records;
  const ended = (query, count) => eventually(`${count} records are final`, async () => {
    const found = (await records(query)).filter(({ final }) => final);
    return found.length === count && found;
  });

  test('a call is counted while it runs, and its sums are those of its records', async () => {
    const room = await world.server.room('counted');
    const [ada, bob] = await join2(room, 'ada', 'bob');
    await ada.hears('bob', 'camera', 20_000);
    const open = await eventually('both are on record', async () => {
      const found = await records(`room=${room}`);
      return found.length === 2 && found.every(({ tx_bytes: sent }) => sent > 10_000) && found;
    });
    for (const record of open) {
      assert.equal(record.final, false);
      assert.deepEqual(record.ip, { mode: 'prefix', value: '127.0.0.0/24' });
      assert.deepEqual([record.os, record.client, record.transport], ['linux', 'chromium', 'udp']);
    }
    await ada.leave();
    await bob.leave();
    peers = [];
    const final = await ended(`room=${room}`, 2);
    for (const record of final) {
      assert.equal(record.end_reason, 'client_left');
      assert.ok(record.video_published_ms > 0 && record.video_published_ms <= record.duration_ms, JSON.stringify(record));
      assert.ok(record.audio_published_ms <= record.duration_ms && record.rx_bytes > 10_000);
    }
    const { calls } = await world.server.api('GET', `/v1/calls?room=${room}`);
    const sum = (key) => final.reduce((all, record) => all + record[key], 0);
    assert.equal(calls.length, 1);
    const { final: over, participants, peak_participants: peak, rx_bytes: rx, tx_bytes: tx } = calls[0];
    assert.deepEqual([over, participants, peak, rx, tx], [true, 2, 2, sum('rx_bytes'), sum('tx_bytes')]);
    const { usage, total } = await world.server.api('GET', '/v1/usage');
    assert.equal(usage.length, 1);
    assert.equal(total.participant_ms, sum('duration_ms'));
    assert.deepEqual([total.egress_bytes, total.ingress_bytes], [sum('tx_bytes'), sum('rx_bytes')]);
    assert.deepEqual([total.calls, total.peak_participants, total.distinct_addresses], [1, 2, 1]);
    assert.equal(total.rounded_up_minutes, 2);
  });

  test('who is moved is seen and heard in the other room, with the same session', async () => {
    const from = await world.server.room('from');
    const to = await world.server.room('to');
    const [eve, fay] = await join2(from, 'eve', 'fay');
    await fay.hears('eve', 'camera', 20_000);
    const move = (name, target, source) => world.server.api(
      'POST', `/v1/rooms/${source}/participants/${name}/move`, { room: target },
    );
    const moved = await move('eve', to, from);
    assert.equal(moved.identity, 'eve');
    assert.ok(moved.tracks.length >= 2, 'her tracks are published there');
    assert.deepEqual(await fay.others(), []);
    await move('fay', to, from);
    await fay.hears('eve', 'camera', 20_000);
    await fay.keepsHearing('eve', 'camera', 20_000);
    await eve.keepsHearing('fay', 'microphone', 20_000);
    const before = await ended(`room=${from}`, 2);
    assert.ok(before.every(({ end_reason: reason }) => reason === 'moved'), JSON.stringify(before));
    await eve.leave();
    await fay.leave();
    peers = [];
    // New rooms go to the shards in turn.
    const metrics = await (await fetch(`${world.server.admin}/metrics`)).text();
    const relayed = Number(/^stube_relayed_datagrams_total\{result="passed"\} (\d+)$/m.exec(metrics)?.[1]);
    assert.ok(relayed > 100, `it was another shard's: ${relayed} datagrams`);
    const after = await ended(`room=${to}`, 2);
    assert.ok(after.every(({ end_reason: reason, tx_bytes: sent }) => reason === 'client_left' && sent > 0));
  });

  test('an erasure ends the session and leaves no trace on disk', async () => {
    const room = await world.server.room('erased');
    const [canary] = await join2(room, CANARY);
    await eventually('it is on record', async () => (await records(`identity=${CANARY}`)).length === 1);
    const found = () => readdirSync(world.server.directory).filter(
      (name) => readFileSync(join(world.server.directory, name)).includes(CANARY),
    );
    assert.ok(found().length > 0, 'it was on disk');
    const exported = await world.server.api('GET', `/v1/subjects/${CANARY}`);
    assert.equal(exported.records.length, 1);
    assert.ok(exported.events.some(({ event }) => event === 'participant_joined'));
    const erased = await world.server.api('DELETE', `/v1/subjects/${CANARY}`);
    assert.equal(erased.sessions, 1);
    const rest = await ended(`room=${room}`, 1);
    assert.deepEqual([rest[0].identity, rest[0].ip.mode, rest[0].os], [null, 'none', null]);
    assert.equal(rest[0].end_reason, 'consent_withdrawn');
    assert.deepEqual(found(), []);
    assert.deepEqual((await world.server.api('GET', `/v1/subjects/${CANARY}`)).records, []);
    const metrics = await (await fetch(`${world.server.admin}/metrics`)).text();
    const log = readFileSync(world.server.logPath, 'utf8');
    assert.ok(!metrics.includes(CANARY) && !log.includes(CANARY));
    await canary.page.close();
    peers = [];
  });

  test('a crash costs a record at most a checkpoint and a second', async () => {
    const room = await world.server.room('crash');
    await join2(room, 'ivy', 'joe');
    await eventually('both are on record', async () => (await records(`room=${room}`)).length === 2);
    const joined = Date.now();
    await pause(3_500);
    const floor = Date.now() - joined;
    await world.server.kill();
    const open = peers;
    await world.server.run();
    const closed = await ended(`room=${room}`, 2);
    const ceiling = Date.now() - joined + 5_000;
    for (const { end_reason: reason, duration_ms: duration } of closed) {
      assert.equal(reason, 'server_crash');
      assert.ok(duration >= floor - (CHECKPOINT_S + 1) * 1_000, `${duration} ms of at least ${floor} ms`);
      assert.ok(duration <= ceiling, `${duration} ms`);
    }
    assert.ok((await records('')).every(({ final }) => final), 'nothing is left open');
    await Promise.all(open.map((peer) => peer.page.close()));
    peers = [];
  });
});
