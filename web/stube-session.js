/**
 * One Stube session: a PeerConnection and the HTTP resource that stands for it on the server.
 *
 * Knows offers, answers and ICE; knows nothing of rooms. `stube.js` is the module to use.
 * @module
 */

/** How long one HTTP request may take. */
const REQUEST_TIMEOUT_MS = 10_000;
/** How long leaving waits for the server before the connection is closed without it. */
const CLOSE_WAIT_MS = 1_000;

/** What the server refused, in its own words (RFC 9457). */
export class StubeError extends Error {
  /**
   * @param {string} message
   * @param {{status?: number, code?: string, retryAfter?: number}} [about]
   */
  constructor(message, { status = 0, code = 'unknown', retryAfter = 0 } = {}) {
    super(message);
    this.name = 'StubeError';
    /** HTTP status; 0 where there was no HTTP answer. */
    this.status = status;
    /** A stable word such as `room_not_found`. */
    this.code = code;
    /** Seconds the server asks to wait. */
    this.retryAfter = retryAfter;
  }

  /** Reads an error answer. */
  static async from(response) {
    const problem = await response.json().catch(() => ({}));
    return new StubeError(problem.detail ?? problem.title ?? `the server answered ${response.status}`, {
      status: response.status,
      code: problem.code,
      retryAfter: Number(response.headers.get('Retry-After')) || 0,
    });
  }
}

/** A PeerConnection and its session on the server. */
export class Session {
  #url = null;
  #etag = null;
  #answer = null;
  #lastTurn = Promise.resolve();

  /** @param {RTCIceServer[]} iceServers */
  constructor(iceServers) {
    this.iceServers = iceServers;
    this.pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle', rtcpMuxPolicy: 'require', iceServers });
    // Before the first offer, so that the offer holds the m=application line.
    this.channel = this.pc.createDataChannel('stube', { protocol: 'stube.v1', ordered: true });
  }

  /**
   * Joins: one request with everything that was added to the connection so far.
   * No candidate is sent, here or later: the server's address is reachable and it learns ours from our first check.
   * @param {string} endpoint
   * @param {string} token
   */
  open(endpoint, token) {
    return this.#inTurn(async () => {
      await this.pc.setLocalDescription();
      const response = await request(endpoint, 'POST', 'application/sdp', this.pc.localDescription.sdp, {
        Authorization: `Bearer ${token}`,
      });
      this.#url = new URL(response.headers.get('Location'), response.url).href;
      this.#etag = response.headers.get('ETag');
      this.#learnIceServers(response.headers.get('Link'));
      await this.#accept(await response.text());
    });
  }

  /**
   * Changes the media lines by a further offer. Where the server refuses, the offer is rolled back and `undo` is
   * called, so that a later offer does not repeat what was refused.
   * @param {() => void|Promise<void>} change
   * @param {() => void|Promise<void>} undo
   */
  offer(change, undo) {
    return this.#inTurn(async () => {
      await change();
      try {
        await this.pc.setLocalDescription();
        const response = await this.#patch('application/sdp', this.pc.localDescription.sdp, this.#etag);
        await this.#accept(await response.text());
      } catch (error) {
        await this.#rollBack();
        await undo();
        throw error;
      }
    });
  }

  /** Restarts ICE: new credentials there and back, everything else stays. */
  restartIce() {
    return this.#inTurn(async () => {
      this.pc.setConfiguration({ ...this.pc.getConfiguration(), iceServers: this.iceServers });
      try {
        await this.pc.setLocalDescription(await this.pc.createOffer({ iceRestart: true }));
        // `*`, because the answer to an earlier restart may be what the network lost.
        const fragment = iceFragment(this.pc.localDescription.sdp);
        const response = await this.#patch('application/trickle-ice-sdpfrag', fragment, '*');
        await this.#accept(withIceOf(this.#answer, await response.text()));
      } catch (error) {
        await this.#rollBack();
        throw error;
      }
    });
  }

  /** Ends the session. Safe while the page unloads. */
  async close() {
    const url = this.#url;
    this.#url = null;
    if (url !== null) {
      // DELETE first: closing the connection also ends the session, and then there would be none to delete.
      // The server may have ended it before us, or be gone: either way it is over.
      const signal = AbortSignal.timeout(CLOSE_WAIT_MS);
      await fetch(url, { method: 'DELETE', keepalive: true, signal }).catch(() => {});
    }
    this.pc.close();
  }

  /** Waits for the media path; rejects when it has not come up in time. */
  connected(timeoutMs) {
    const { pc } = this;
    return new Promise((resolve, reject) => {
      const finish = (settle, value) => {
        clearTimeout(timer);
        pc.removeEventListener('connectionstatechange', look);
        settle(value);
      };
      const look = () => {
        if (pc.connectionState === 'connected') finish(resolve);
      };
      const timer = setTimeout(
        () => finish(reject, new StubeError('the media path did not come up', { code: 'no_media_path' })),
        timeoutMs,
      );
      pc.addEventListener('connectionstatechange', look);
      look();
    });
  }

  async #patch(type, body, ifMatch) {
    if (this.#url === null) throw new StubeError('the session has ended', { status: 404, code: 'session_not_found' });
    const response = await request(this.#url, 'PATCH', type, body, { 'If-Match': ifMatch });
    this.#etag = response.headers.get('ETag') ?? this.#etag;
    return response;
  }

  async #accept(answer) {
    await this.pc.setRemoteDescription({ type: 'answer', sdp: answer });
    this.#answer = answer;
  }

  async #rollBack() {
    if (this.pc.signalingState !== 'have-local-offer') return;
    await this.pc.setLocalDescription({ type: 'rollback' });
  }

  #learnIceServers(header) {
    const servers = parseIceServers(header ?? '');
    if (servers.length > 0) this.iceServers = servers;
  }

  /** Offers must not overlap: each waits for the one before it. */
  #inTurn(work) {
    const turn = this.#lastTurn.then(work);
    this.#lastTurn = turn.catch(() => {});
    return turn;
  }
}

async function request(url, method, type, body, headers) {
  const response = await fetch(url, {
    method,
    headers: { 'Content-Type': type, ...headers },
    body,
    signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
  });
  if (!response.ok) throw await StubeError.from(response);
  return response;
}

/** `Link: <turn:host?transport=udp>; rel="ice-server"; username="…"; credential="…"`, several joined by commas. */
export function parseIceServers(header) {
  const servers = [];
  for (const [, urls, parameters] of header.matchAll(/<([^>]*)>((?:\s*;\s*[\w-]+="?[^",;]*"?)*)/g)) {
    const values = Object.fromEntries(
      [...parameters.matchAll(/([\w-]+)="?([^",;]*)"?/g)].map(([, name, value]) => [name, value]),
    );
    if (values.rel !== 'ice-server') continue;
    servers.push(values.username === undefined
      ? { urls }
      : { urls, username: values.username, credential: values.credential });
  }
  return servers;
}

/** The part of an offer that restarts ICE, as an SDP fragment (RFC 8840): the credentials, on the bundled line. */
export function iceFragment(offer) {
  const group = offer.match(/^a=group:BUNDLE (\S+).*$/m);
  const section = sectionOf(offer, group[1]);
  const find = (pattern) => section.match(pattern)?.[0] ?? offer.match(pattern)[0];
  return [
    group[0].trim(),
    `m=${section.match(/^m=(\w+)/)[1]} 9 UDP/TLS/RTP/SAVPF 0`,
    `a=mid:${group[1]}`,
    find(/^a=ice-ufrag:\S+/m),
    find(/^a=ice-pwd:\S+/m),
    '',
  ].join('\r\n');
}

/** The last answer with the credentials and candidates of the server's fragment in place of its own. */
export function withIceOf(answer, fragment) {
  const ufrag = fragment.match(/^a=ice-ufrag:\S+/m)[0];
  const pwd = fragment.match(/^a=ice-pwd:\S+/m)[0];
  const candidates = fragment.match(/^a=(candidate:.+|end-of-candidates)/gm) ?? [];
  const renewed = answer
    .replace(/^a=(candidate:.*|end-of-candidates)\r?\n/gm, '')
    .replace(/^a=ice-ufrag:\S+/gm, ufrag)
    .replace(/^a=ice-pwd:\S+/gm, pwd);
  const bundled = sectionOf(renewed, renewed.match(/^a=group:BUNDLE (\S+)/m)[1]);
  const lines = [...new Set(candidates)].map((line) => `${line.trim()}\r\n`).join('');
  return renewed.replace(bundled, () => bundled + lines);
}

function sectionOf(sdp, mid) {
  const sections = sdp.split(/^(?=m=)/m).slice(1);
  return sections.find((section) => section.split(/\r?\n/).includes(`a=mid:${mid}`));
}
