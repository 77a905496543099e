/**
 * Stube's client: joins a room, publishes, receives. No dependency; works in Chromium, Firefox and Safari.
 *
 *     import { connect } from './stube.js';
 *
 *     const call = await connect({
 *       url: sessionUrl,                          // a room's `session_url`
 *       token: async () => (await fetch('/my/token')).text(),
 *       publish: [{ source: 'camera', track, simulcast: true }],
 *     });
 *     for (const slot of call.slots.values()) if (slot.kind === 'audio') play(slot.stream);
 *     call.on('slots', () => draw(call.participants, call.slots));
 *     await call.leave();
 *
 * Media arrives in slots: the server fills and refills them without negotiation and says so in `slots` events;
 * `want()` chooses what they show.
 * @module
 */

import { Publication } from './stube-publication.js';
import { Session, StubeError } from './stube-session.js';
import { StatsMeter } from './stube-stats.js';

export { StubeError };

/** A broken path may heal by itself; so long we wait before we restart ICE. */
const GRACE_MS = 2_000;
/** How long one ICE restart may take before the next is tried. */
const RESTART_WAIT_MS = 6_000;
/** The server keeps a session without a path for 30 s; after that only joining again helps. */
const RESTARTS_FOR_MS = 30_000;
/** How long we try to come back before we call it over. */
const GIVE_UP_AFTER_MS = 120_000;
/** The longest pause between two attempts: a restarted server is back in a minute and has its callers 3 s later. */
const RETRY_SOON_MS = 2_400;
const RETRIES_SOON_MS = 60_000;
/** And then: an outage that long is no restart, and a thousand clients shall not hammer at it. */
const RETRY_LATE_MS = 8_000;
/** How long the welcome may take once the server has answered the offer. */
const WELCOME_WAIT_MS = 15_000;
const DEPENDENCY_DESCRIPTOR = 'https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension';
/** The server's limit for one message. */
const MAX_MESSAGE_BYTES = 16 * 1024;

/**
 * @typedef {object} Participant
 * @property {string} sid
 * @property {string} identity
 * @property {string} name
 * @property {string} metadata
 * @property {Record<string, string>} attributes
 * @property {Track[]} tracks
 *
 * @typedef {object} Track
 * @property {string} sid
 * @property {'audio'|'video'} kind
 * @property {import('./stube-publication.js').Source} source
 * @property {boolean} muted
 * @property {string} codec
 * @property {{rid: string, width?: number, height?: number}[]} layers
 *
 * @typedef {object} Slot
 * @property {string} mid
 * @property {'audio'|'video'} kind
 * @property {string|null} track        sid of the track it carries now
 * @property {string|null} participant  sid of the participant it belongs to
 * @property {'live'|'paused'|'empty'} state
 * @property {object|null} layer
 * @property {MediaStream} stream       the same for the slot's whole life
 *
 * @typedef {object} Options
 * @property {string} url  a room's `session_url`
 * @property {string|(() => string|Promise<string>)} token  asked again whenever the client has to join anew
 * @property {({source: import('./stube-publication.js').Source, track: MediaStreamTrack} &
 *   import('./stube-publication.js').PublishOptions)[]} [publish]  what to publish from the start
 * @property {{video?: number, audio?: number}} [slots]  how much to receive at once; 9 and 4 by default
 * @property {RTCIceServer[]} [iceServers]  the server names its own; these are for networks that need them at once
 */

/**
 * Joins and resolves when the server has welcomed us.
 * @param {Options} options
 * @returns {Promise<Call>}
 */
export async function connect(options) {
  const call = new Call(options);
  await call.join();
  return call;
}

/**
 * One participant's call, over as many sessions as the network makes necessary.
 *
 * Events, each a `CustomEvent` whose `detail` is the server's message unless noted:
 * `state` (detail: the new state), `welcome`, `moved`, `participant`, `track`, `slots`, `speakers`, `publish`,
 * `message`, `leave`, `error`, `stats` (detail: a summary; see {@link Call#watchStats}).
 * After `welcome` and `moved` everything may have changed: draw anew from the properties.
 */
export class Call extends EventTarget {
  #options;
  #session = null;
  #iceServers;
  #heardSlots = new Map();
  #idleLines = new Map();
  #wish = null;
  #meter = new StatsMeter();
  #recovering = false;
  #wake = () => {};
  #welcomed = null;
  #graceTimer = 0;

  /** @param {Options} options */
  constructor(options) {
    super();
    this.#options = options;
    this.#iceServers = options.iceServers ?? [];
    /** @type {'new'|'connecting'|'connected'|'reconnecting'|'closed'} */
    this.state = 'new';
    /** @type {string|null} why the call ended, where it was not our own wish */
    this.closedBy = null;
    /** @type {{sid: string, name: string, metadata: string}|null} */
    this.room = null;
    /** @type {Participant|null} ourselves */
    this.me = null;
    /** @type {Map<string, Participant>} the others, by sid */
    this.participants = new Map();
    /** @type {Map<string, Slot>} by mid */
    this.slots = new Map();
    /** @type {Map<string, Publication>} what we publish, by source */
    this.publications = new Map();
    for (const { source, track, ...rest } of options.publish ?? []) {
      this.publications.set(source, new Publication(source, track, rest));
    }
  }

  /** Listens; the returned function stops listening. The handler gets the event's detail. */
  on(type, handler) {
    const listener = (event) => handler(event.detail);
    this.addEventListener(type, listener);
    return () => this.removeEventListener(type, listener);
  }

  /** Joins. Rejects with a {@link StubeError} when the server does not let us in. */
  async join() {
    this.#setState('connecting');
    addEventListener('pagehide', this.#onPageHide);
    addEventListener('online', this.#onOnline);
    try {
      await this.#enter();
    } catch (error) {
      await this.leave();
      throw error;
    }
    this.#setState('connected');
  }

  /** Leaves and releases the connection. Tracks belong to the caller and are not stopped. */
  async leave() {
    if (this.state === 'closed') return;
    removeEventListener('pagehide', this.#onPageHide);
    removeEventListener('online', this.#onOnline);
    clearTimeout(this.#graceTimer);
    this.#setState('closed');
    this.#wake();
    await this.#session?.close();
  }

  /** The connection, for what this module does not cover. It changes when the client has to join anew. */
  get peerConnection() {
    return this.#session?.pc ?? null;
  }

  /**
   * Publishes a track, or sends it in place of what the source has sent so far (and unmutes it).
   * Needs a further offer only where the source has no line yet.
   * @param {import('./stube-publication.js').Source} source
   * @param {MediaStreamTrack} track
   * @param {import('./stube-publication.js').PublishOptions} [options]
   */
  async publish(source, track, options = {}) {
    const existing = this.publications.get(source);
    if (existing) {
      await existing.replaceTrack(track);
      this.setMuted(source, options.muted ?? false);
      return;
    }
    const publication = new Publication(source, track, options);
    const idle = this.#idleLines.get(source);
    this.publications.set(source, publication);
    this.#idleLines.delete(source);
    const undo = () => {
      this.publications.delete(source);
      // A new line that was refused must not be in the next offer; an old one can wait.
      if (idle) this.#putDown(source, idle);
      else publication.transceiver.stop();
    };
    await this.#session.offer(() => (idle ? publication.resume(idle) : publication.addTo(this.#session.pc)), undo);
    this.#nameSources();
  }

  /** Ends a publication. Its line is kept for the next one of the same source. */
  async unpublish(source) {
    const publication = this.publications.get(source);
    if (!publication) return;
    const { transceiver } = publication;
    this.publications.delete(source);
    await this.#session.offer(() => this.#putDown(source, transceiver), () => {
      this.#idleLines.delete(source);
      this.publications.set(source, publication);
      return publication.resume(transceiver);
    });
  }

  /** Sends another track, or with null nothing, without unpublishing: for a muted camera that is switched off. */
  async replaceTrack(source, track) {
    await this.publications.get(source)?.replaceTrack(track);
  }

  /** Mutes or unmutes one of our own sources. */
  setMuted(source, muted) {
    this.#tell(this.publications.get(source)?.setMuted(muted));
  }

  /**
   * Says what we want to receive; replaces the last wish. Without any, the server sends cameras in the order people
   * spoke and the loudest voices.
   * @param {{video: {track: string, height: number, priority?: number}[], audio?: 'auto'|string[]}} wish
   */
  want(wish) {
    this.#wish = wish;
    this.#tell({ type: 'want', ...wish });
  }

  /**
   * Sends a message to everyone, or to some.
   * @param {string} topic
   * @param {unknown} data  anything JSON can hold
   * @param {string[]} [to]  identities
   */
  sendMessage(topic, data, to) {
    const sent = this.#tell({ type: 'message', topic, data, ...(to && { to }) });
    if (!sent) throw new StubeError('not connected at the moment', { code: 'not_connected' });
  }

  /** Adds slots by a further offer. */
  async addSlots(kind, count) {
    let added = [];
    await this.#session.offer(
      () => { added = this.#addSlotLines(kind, count); },
      () => { for (const transceiver of added) transceiver.stop(); },
    );
    this.#registerSlots(added);
  }

  /** Restarts ICE now; for callers who know that the network has changed. */
  restartIce() {
    return this.#recover();
  }

  /** Statistics since the last reading. */
  getStats() {
    return this.#meter.read(this.#session.pc);
  }

  /** Emits `stats` every so often until the returned function is called. */
  watchStats(everyMs) {
    // The first reading is only what the next one's rates are measured from.
    this.getStats();
    const timer = setInterval(async () => {
      if (this.state === 'connected') this.#emit('stats', await this.getStats());
    }, everyMs);
    return () => clearInterval(timer);
  }

  // ---- joining -----------------------------------------------------------------------------------------------

  async #enter() {
    const { token, url, slots = {} } = this.#options;
    const session = new Session(this.#iceServers);
    this.#session = session;
    this.#heardSlots.clear();
    this.#idleLines.clear();
    for (const publication of this.publications.values()) publication.addTo(session.pc);
    const lines = [
      ...this.#addSlotLines('audio', slots.audio ?? 4),
      ...this.#addSlotLines('video', slots.video ?? 9),
    ];
    try {
      const welcome = this.#awaitWelcome(session);
      await session.open(new URL(url, location.href).href, typeof token === 'function' ? await token() : token);
      this.#iceServers = session.iceServers;
      this.slots.clear();
      this.#registerSlots(lines);
      await welcome;
    } catch (error) {
      await session.close();
      throw error;
    }
    session.pc.addEventListener('connectionstatechange', () => this.#onPath(session));
    session.channel.addEventListener('close', () => this.#onChannelClosed(session));
  }

  #awaitWelcome(session) {
    const welcome = new Promise((resolve, reject) => {
      this.#welcomed = { resolve, reject };
      setTimeout(() => reject(new StubeError('the server did not welcome us', { code: 'no_welcome' })), WELCOME_WAIT_MS);
    });
    welcome.catch(() => {}); // where the request fails, nobody waits for this one
    session.channel.addEventListener('message', (event) => {
      if (session === this.#session) this.#hear(JSON.parse(event.data));
    });
    return welcome;
  }

  #addSlotLines(kind, count) {
    const lines = Array.from({ length: count }, () => this.#session.pc.addTransceiver(kind, { direction: 'recvonly' }));
    if (kind === 'video') lines.forEach(askForDescriptor);
    return lines;
  }

  #registerSlots(transceivers) {
    for (const { mid, receiver } of transceivers) {
      const slot = { mid, kind: receiver.track.kind, track: null, participant: null, state: 'empty', layer: null };
      // The server may have spoken of the slot before its answer reached us.
      this.slots.set(mid, { ...slot, ...this.#heardSlots.get(mid), stream: new MediaStream([receiver.track]) });
    }
  }

  async #putDown(source, transceiver) {
    this.#idleLines.set(source, transceiver);
    transceiver.direction = 'inactive';
    await transceiver.sender.replaceTrack(null);
  }

  // ---- what the server says ----------------------------------------------------------------------------------

  #hear(message) {
    const handle = this.#handlers[message.type];
    if (!handle) return;
    handle(message);
    this.#emit(message.type, message);
  }

  #handlers = {
    welcome: (message) => {
      this.#enterRoom(message);
      if (this.#wish) this.want(this.#wish);
      this.#welcomed.resolve();
      this.#welcomed = null;
    },
    moved: (message) => this.#enterRoom(message),
    participant: ({ event, participant }) => {
      if (participant.sid === this.me?.sid) this.#hearOfMyself(participant);
      else if (event === 'left') this.participants.delete(participant.sid);
      else this.participants.set(participant.sid, participant);
    },
    track: ({ event, participant: sid, track }) => {
      const participant = sid === this.me?.sid ? this.me : this.participants.get(sid);
      if (!participant) return;
      const others = participant.tracks.filter((known) => known.sid !== track.sid);
      const changed = { ...participant, tracks: event === 'unpublished' ? others : [...others, track] };
      if (participant === this.me) this.#hearOfMyself(changed);
      else this.participants.set(sid, changed);
    },
    slots: ({ slots }) => {
      for (const { mid, kind, track, participant, state, layer } of slots) {
        const heard = { mid, kind, track: track ?? null, participant: participant ?? null, state, layer: layer ?? null };
        this.#heardSlots.set(mid, heard);
        const slot = this.slots.get(mid);
        if (slot) Object.assign(slot, heard);
      }
    },
    publish: ({ track, layers }) => {
      for (const publication of this.publications.values()) if (publication.sid === track) publication.apply(layers);
    },
    leave: ({ reason, action }) => {
      const comeBack = action === 'reconnect';
      const about = { status: comeBack ? 503 : 410, code: reason };
      if (this.#welcomed) this.#welcomed.reject(new StubeError(`the server ended the session: ${reason}`, about));
      else if (comeBack) this.#recover({ anew: true });
      else this.#end(reason);
    },
    speakers() {}, message() {}, error() {}, // only passed on
  };

  #enterRoom({ room, participant, participants }) {
    this.room = room;
    this.participants = new Map(participants.filter(({ sid }) => sid !== participant.sid).map((one) => [one.sid, one]));
    this.#hearOfMyself(participant);
    this.#nameSources();
  }

  /** Finds the server's ids of our tracks; a publication keeps its track as long as the source still fits. */
  #hearOfMyself(participant) {
    this.me = participant;
    for (const publication of this.publications.values()) {
      const fitting = participant.tracks.filter(({ source }) => source === publication.source);
      const track = fitting.find(({ sid }) => sid === publication.sid) ?? fitting[0];
      if (track) this.#tell(publication.hear(track));
    }
  }

  /** The server guesses sources from the order of lines; a line added later may be anything. */
  #nameSources() {
    const tracks = [...this.publications.values()].map(({ transceiver, source }) => ({ mid: transceiver.mid, source }));
    if (tracks.length > 0) this.#tell({ type: 'tracks', tracks });
  }

  #tell(message) {
    if (!message || this.#session?.channel.readyState !== 'open') return false;
    const text = JSON.stringify(message);
    if (new TextEncoder().encode(text).length > MAX_MESSAGE_BYTES) throw new RangeError('the message is too long');
    this.#session.channel.send(text);
    return true;
  }

  // ---- coming back -------------------------------------------------------------------------------------------

  #onPath(session) {
    if (session !== this.#session) return;
    clearTimeout(this.#graceTimer);
    const { connectionState } = session.pc;
    if (connectionState === 'failed') this.#recover();
    if (connectionState === 'disconnected') this.#graceTimer = setTimeout(() => this.#recover(), GRACE_MS);
  }

  #onChannelClosed(session) {
    // The server closed the session without a word, or its host died.
    if (session === this.#session && this.state === 'connected') this.#recover({ anew: true });
  }

  #onOnline = () => {
    // Another network, most likely: ICE would take seconds to notice.
    this.#wake();
    this.#recover();
  };

  #onPageHide = () => this.leave();

  /** Restarts ICE until it holds or the session is gone, then joins anew, until that holds or we give up. */
  async #recover({ anew = false } = {}) {
    if (this.#recovering || this.state !== 'connected') return;
    this.#recovering = true;
    this.#setState('reconnecting');
    const start = performance.now();
    let rejoin = anew;
    let failure = null;
    for (let attempt = 0; this.state === 'reconnecting'; attempt += 1) {
      if (attempt > 0) await this.#pause(attempt, failure, performance.now() - start);
      const waited = performance.now() - start;
      rejoin ||= waited > RESTARTS_FOR_MS;
      try {
        if (waited > GIVE_UP_AFTER_MS) throw new StubeError('gave up reconnecting', { status: 408, code: 'gave_up' });
        if (this.state !== 'reconnecting') break;
        await (rejoin ? this.#reenter() : this.#restart());
        if (this.state === 'reconnecting') this.#setState('connected');
      } catch (error) {
        failure = error;
        const refused = error.status >= 400 && error.status < 500 && error.status !== 429;
        if (refused && rejoin) await this.#giveUp(error);
        else if (refused) {
          // The session is gone, and the server is there: no reason to wait.
          rejoin = true;
          attempt = -1;
        }
      }
    }
    this.#recovering = false;
  }

  async #restart() {
    await this.#session.restartIce();
    await this.#session.connected(RESTART_WAIT_MS);
  }

  async #reenter() {
    await this.#session.close();
    await this.#enter();
    // `leave()` may have been called meanwhile, when there was no session to end yet.
    if (this.state === 'closed') await this.#session.close();
  }

  async #giveUp(error) {
    this.#emit('error', { type: 'error', code: error.code, message: error.message });
    await this.#end(error.code);
  }

  #end(reason) {
    this.closedBy = reason;
    return this.leave();
  }

  /** Waits longer after each failure, at random, so that a thousand clients do not come back at once. */
  #pause(attempt, failure, waited) {
    const longest = waited < RETRIES_SOON_MS ? RETRY_SOON_MS : RETRY_LATE_MS;
    const backoff = Math.min(longest, 500 * 2 ** (attempt - 1)) * (0.5 + Math.random() / 2);
    const wait = Math.max(backoff, (failure?.retryAfter ?? 0) * 1000);
    return new Promise((resolve) => {
      this.#wake = resolve;
      setTimeout(resolve, wait);
    });
  }

  #setState(state) {
    if (this.state === state) return;
    this.state = state;
    this.#emit('state', state);
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/**
 * Asks for the dependency descriptor, which browsers do not by themselves on lines that receive. By it they tell spatial
 * layers of AV1 apart, and keyframes of pictures that only the receiver can read.
 */
function askForDescriptor(line) {
  if (!line.setHeaderExtensionsToNegotiate) return;
  line.setHeaderExtensionsToNegotiate(line.getHeaderExtensionsToNegotiate().map((extension) => (
    extension.uri === DEPENDENCY_DESCRIPTOR ? { ...extension, direction: 'sendrecv' } : extension
  )));
}
