// The contract by hand, without stube.js: whoever writes a client of their own relies on just this.

import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { eventually } from './harness/eventually.js';
import { useWorld } from './harness/world.js';

const FRAGMENT = 'application/trickle-ice-sdpfrag';

describe('a raw RTCPeerConnection', () => {
  const world = useWorld('contract');
  let page;
  let room;
  let joined;

  const raw = (name, argument) => page.evaluate(([name, argument]) => globalThis.raw[name](argument), [name, argument]);
  const messages = async (name, type) => (await raw('messages', name)).filter((message) => message.type === type);
  const join = async (name, lines) => raw('join', {
    name,
    lines,
    url: world.server.sessions,
    token: await world.server.token(room, name),
  });

  before(async () => {
    page = await world.browser.page();
    await page.goto(`${world.site.url}/pages/raw.html`);
    await eventually('the page has loaded', () => page.evaluate(() => Boolean(globalThis.raw)));
    room = await world.server.room('raw');
    joined = await join('sender', ['send audio', 'send video']);
    await eventually('the sender is welcomed', async () => (await messages('sender', 'welcome')).length === 1);
    await join('viewer', ['receive audio', 'receive video']);
  });

  test('joins with one request', () => {
    assert.equal(joined.status, 201);
    assert.match(joined.type, /^application\/sdp\b/);
    assert.match(joined.location, /\/v1\/sessions\/SE_\w{12,}$/);
    assert.match(joined.etag, /^"[^"]+"$/, 'a strong ETag');
    assert.match(joined.answer, /^a=candidate:.* udp .* typ host/m);
    assert.match(joined.answer, /^a=candidate:.* tcp .* tcptype passive/m);
    const mids = (sdp) => sdp.match(/^a=mid:.*/gm).map((line) => line.trim());
    assert.deepEqual(mids(joined.answer), mids(joined.offer));
  });

  test('is welcomed first, and numbers rise by one', async () => {
    const [welcome] = await eventually('a welcome', async () => {
      const all = await raw('messages', 'viewer');
      return all.length > 1 && all;
    });
    assert.equal(welcome.type, 'welcome');
    assert.equal(welcome.room.name, room);
    assert.equal(welcome.participant.identity, 'viewer');
    assert.deepEqual(welcome.participants.map(({ identity }) => identity), ['sender']);
    const sequence = (await raw('messages', 'viewer')).map(({ seq }) => seq);
    assert.deepEqual(sequence, sequence.map((_, index) => sequence[0] + index));
  });

  test('is told of the others, their tracks and its slots', async () => {
    const tracks = await eventually('the viewer knows of two tracks', async () => {
      const known = await tracksOfSender();
      return known.length === 2 && known;
    });
    assert.deepEqual(tracks.map(({ kind, source }) => `${kind} ${source}`).sort(), ['audio microphone', 'video camera']);
    const [event] = await eventually('joined', async () => {
      const events = await messages('sender', 'participant');
      return events.length > 0 && events;
    });
    assert.equal(event.event, 'joined');
    assert.equal(event.participant.identity, 'viewer');
    const slots = await eventually('both slots are filled', async () => {
      const state = await slotsOf('viewer');
      return state.size === 2 && [...state.values()].every(({ track }) => track) && state;
    });
    for (const slot of slots.values()) assert.ok(tracks.some(({ sid, kind }) => sid === slot.track && kind === slot.kind));
  });

  /** What the viewer knows of the sender's tracks: the welcome's, changed by what came after. */
  async function tracksOfSender() {
    const [{ participants: [sender] }] = await messages('viewer', 'welcome');
    const tracks = new Map(sender.tracks.map((track) => [track.sid, track]));
    for (const { participant, track } of await messages('viewer', 'track')) {
      if (participant === sender.sid) tracks.set(track.sid, track);
    }
    return [...tracks.values()];
  }

  async function slotsOf(name) {
    const state = new Map();
    for (const { slots } of await messages(name, 'slots')) for (const slot of slots) state.set(slot.mid, slot);
    return state;
  }

  test('decodes picture and sound', async () => {
    await eventually('both flow', async () => {
      const flows = Object.values(await raw('received', 'viewer'));
      return flows.some(({ frames }) => frames > 10) && flows.some(({ energy }) => energy > 0);
    });
  });

  test('tells its wishes, and slots follow without an offer', async () => {
    await raw('send', { name: 'viewer', message: { type: 'want', video: [], audio: [] } });
    await eventually('slots are empty', async () => [...(await slotsOf('viewer')).values()].every(({ track }) => track === null));
    const camera = (await tracksOfSender()).find(({ kind }) => kind === 'video').sid;
    await raw('send', { name: 'viewer', message: { type: 'want', video: [{ track: camera, height: 180 }] } });
    await eventually('both are back', async () => [...(await slotsOf('viewer')).values()].every(({ track }) => track !== null));
    const before = await raw('received', 'viewer');
    await eventually('the picture goes on', async () => {
      const flows = Object.entries(await raw('received', 'viewer'));
      return flows.some(([mid, { frames }]) => frames > before[mid].frames + 5);
    });
  });

  test('pings, and survives what it does not understand', async () => {
    await raw('send', { name: 'sender', message: { type: 'ping', at: 42 } });
    await eventually('pong', async () => (await messages('sender', 'pong')).some(({ at }) => at === 42));
    await raw('send', { name: 'sender', message: { type: 'from the future', field: 1 } });
    await raw('sendText', { name: 'sender', text: '{"type":' });
    await raw('send', { name: 'sender', message: { type: 'mute', track: 'TR_nonexistent', muted: true } });
    await raw('send', { name: 'sender', message: { type: 'ping', at: 43 } });
    await eventually('pong again', async () => (await messages('sender', 'pong')).some(({ at }) => at === 43));
  });

  test('adds lines by a further offer', async () => {
    assert.equal(await raw('addLines', { name: 'sender', lines: ['send video'] }), 200);
    const [track] = await eventually('the viewer hears of it', async () => {
      const published = (await messages('viewer', 'track')).filter(({ event }) => event === 'published');
      return published.length > 0 && published;
    });
    assert.equal(track.track.kind, 'video');
    assert.equal(track.track.source, 'screen_share');
  });

  test('is held to If-Match and content types', async () => {
    const patch = async (about) => {
      const { status, code } = await raw('patch', { name: 'sender', ...about });
      return status < 400 ? status : `${status} ${typeof code}`;
    };
    const candidate = await raw('candidateFragment', 'sender');
    assert.equal(await patch({ type: FRAGMENT, body: candidate, ifMatch: 'current' }), 204);
    assert.equal(await patch({ type: 'application/sdp', body: 'current' }), '428 string');
    assert.equal(await patch({ type: 'application/sdp', body: 'current', ifMatch: '"stale"' }), '412 string');
    const restart = candidate.replace(/ice-ufrag:.*/, 'ice-ufrag:anew').replace(/ice-pwd:.*/, 'ice-pwd:0123456789abcdefghijklmn');
    assert.equal(await patch({ type: FRAGMENT, body: restart }), '428 string');
    assert.equal(await patch({ type: FRAGMENT, body: restart, ifMatch: '"stale"' }), '412 string');
    assert.equal(await patch({ type: 'text/plain', body: candidate, ifMatch: 'current' }), '415 string');
    assert.equal(await raw('state', 'sender'), 'connected');
  });

  test('leaves by DELETE, once', async () => {
    assert.equal(await raw('remove', 'sender'), 200);
    assert.equal(await raw('remove', 'sender'), 404);
    await eventually('the viewer hears of it', async () => (
      (await messages('viewer', 'participant')).some(({ event, participant }) => event === 'left' && participant.identity === 'sender')
    ), 2_000);
    await eventually('its slots are empty', async () => (
      [...(await slotsOf('viewer')).values()].every(({ track, state }) => track === null && state === 'empty')
    ), 2_000);
  });
});
