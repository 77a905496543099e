// Many people of one call in one page, who watch for how long their media stays away.

import { Call } from '/web/stube.js';

/** Small pictures: what a crowd encodes and decodes here, one machine has to. */
const PICTURE = { width: 160, height: 90, frameRate: 10 };
const SLOTS = { audio: 1, video: 2 };
const LOOK_MS = 20;

/** @type {{call: Call, back: number[], newest: number, grewAt: number, longest: number, backAt: number}[]} */
let crowd = [];

globalThis.crowd = {
  /** Everyone joins, a few at a time. */
  async join({ url, tokens }) {
    const camera = (await navigator.mediaDevices.getUserMedia({ video: PICTURE })).getTracks()[0];
    const join = async (token) => {
      const publish = [{ source: 'camera', track: camera.clone(), simulcast: false }];
      const call = new Call({ url, token, slots: SLOTS, publish });
      const member = { call, newest: 0, grewAt: performance.now(), longest: 0, backAt: 0 };
      call.on('welcome', () => play(call));
      await call.join();
      return member;
    };
    while (crowd.length < tokens.length) {
      crowd.push(...await Promise.all(tokens.slice(crowd.length, crowd.length + 4).map(join)));
    }
    setInterval(look, LOOK_MS);
  },

  states: () => crowd.map(({ call }) => call.state),
  /** How many have got a packet of somebody's picture within this time. */
  flowing: (withinMs) => crowd.filter(({ grewAt }) => performance.now() - grewAt < withinMs).length,
  /** From now on gaps count. */
  watch() {
    for (const member of crowd) member.longest = 0;
  },
  /** The longest time without a packet, of each, and when it ended. */
  gaps: () => crowd.map(({ longest, backAt }) => ({ longest: Math.round(longest), backAt })),
  leave: () => Promise.all(crowd.map(({ call }) => call.leave())),
};

function look() {
  const now = performance.now();
  for (const member of crowd) {
    const receivers = member.call.peerConnection?.getReceivers() ?? [];
    const times = receivers.flatMap((receiver) => receiver.getSynchronizationSources().map(({ timestamp }) => timestamp));
    const newest = Math.max(0, ...times);
    if (newest <= member.newest) continue;
    const gap = now - member.grewAt;
    Object.assign(member, { newest, grewAt: now });
    if (gap > member.longest) Object.assign(member, { longest: gap, backAt: performance.timeOrigin + now });
  }
}

/** A browser decodes only what is played. */
function play(call) {
  for (const { kind, stream } of call.slots.values()) {
    if (kind !== 'video') continue;
    const player = document.createElement('video');
    Object.assign(player, { srcObject: stream, autoplay: true, muted: true, width: 32 });
    document.body.append(player);
  }
}
