/**
 * One published source: its line on the connection, its encodings, and whether it is muted.
 * @module
 */

/** The kind of media each source has. */
const KIND_OF_SOURCE = {
  microphone: 'audio',
  screen_share_audio: 'audio',
  camera: 'video',
  screen_share: 'video',
};

/** Three simulcast encodings, smallest first, as the server and all browsers expect them. */
const SIMULCAST = [
  { rid: 'q', scaleResolutionDownBy: 4, maxBitrate: 150_000 },
  { rid: 'h', scaleResolutionDownBy: 2, maxBitrate: 500_000 },
  { rid: 'f', scaleResolutionDownBy: 1, maxBitrate: 1_700_000 },
];

/**
 * @typedef {'microphone'|'camera'|'screen_share'|'screen_share_audio'} Source
 *
 * @typedef {object} PublishOptions
 * @property {boolean} [muted]        start muted
 * @property {boolean} [simulcast]    three encodings with the RIDs q, h, f
 * @property {RTCRtpEncodingParameters[]} [encodings]  instead of `simulcast`; one with `scalabilityMode` is SVC
 * @property {string[]} [codecs]      codecs to offer, best first, such as `['VP9', 'VP8']`; all without it
 */

/** What is published as one source. */
export class Publication {
  #options;
  #parameterTurn = Promise.resolve();
  #muteUnconfirmed = false;

  /**
   * @param {Source} source
   * @param {MediaStreamTrack} track
   * @param {PublishOptions} options
   */
  constructor(source, track, options) {
    /** @readonly */
    this.source = source;
    /** @readonly */
    this.kind = KIND_OF_SOURCE[source];
    if (this.kind !== track.kind) throw new TypeError(`a ${track.kind} track cannot be published as ${source}`);
    /** @type {MediaStreamTrack|null} what is sent; null while a muted camera is off */
    this.track = track;
    this.muted = options.muted ?? false;
    /** @type {string|null} the server's id of the track, once it has said it */
    this.sid = null;
    /** @type {RTCRtpTransceiver|null} */
    this.transceiver = null;
    this.#options = options;
    track.enabled = !this.muted;
  }

  /** Puts a new line on a connection that is about to make an offer. */
  addTo(pc) {
    this.sid = null;
    this.#muteUnconfirmed = false;
    const encodings = this.#options.encodings ?? (this.#options.simulcast ? SIMULCAST : undefined);
    this.transceiver = pc.addTransceiver(this.track ?? this.kind, {
      direction: 'sendonly',
      // A copy: browsers may keep and change the objects.
      ...(encodings && { sendEncodings: encodings.map((encoding) => ({ ...encoding })) }),
    });
    if (this.#options.codecs) this.transceiver.setCodecPreferences(codecsOf(this.kind, this.#options.codecs));
  }

  /** Takes a line up again that an earlier publication of this source left. */
  async resume(transceiver) {
    this.transceiver = transceiver;
    transceiver.direction = 'sendonly';
    // The server takes it for a new track, of which it needs everything until it says otherwise.
    await this.#setActive(() => true);
    await transceiver.sender.replaceTrack(this.track);
  }

  /** Sends another track, or nothing, on the same line. */
  async replaceTrack(track) {
    this.track = track;
    if (track !== null) track.enabled = !this.muted;
    await this.transceiver?.sender.replaceTrack(track);
  }

  /**
   * Mutes or unmutes here; returns the message that tells the server, or null where it need not be told yet.
   * @param {boolean} muted
   */
  setMuted(muted) {
    this.muted = muted;
    if (this.track !== null) this.track.enabled = !muted;
    return this.#muteMessage();
  }

  /**
   * Hears what the server says about our track, be it an echo of our own wish or someone else's decision.
   * Until our last wish has been echoed it stands, so that quick toggling does not flicker.
   * @returns {{type: 'mute'}|null} a message to send, if our wish is still unknown to the server
   */
  hear({ sid, muted }) {
    const isNew = this.sid !== sid;
    this.sid = sid;
    if (muted === this.muted) {
      this.#muteUnconfirmed = false;
      return null;
    }
    if (isNew) return this.#muteMessage();
    if (!this.#muteUnconfirmed) {
      this.muted = muted;
      if (this.track !== null) this.track.enabled = !muted;
    }
    return null;
  }

  /**
   * Stops the encodings nobody needs and starts the others.
   * @param {{rid: string, active: boolean}[]} layers
   */
  apply(layers) {
    const wanted = new Map(layers.map(({ rid, active }) => [rid ?? '', active]));
    return this.#setActive((encoding) => wanted.get(encoding.rid ?? '') ?? encoding.active);
  }

  /** One change at a time: a browser refuses parameters that were read before another change. */
  #setActive(isActive) {
    const { sender } = this.transceiver;
    this.#parameterTurn = this.#parameterTurn.then(async () => {
      const parameters = sender.getParameters();
      for (const encoding of parameters.encodings) encoding.active = isActive(encoding);
      await sender.setParameters(parameters);
    }).catch(() => {
      // The line is gone: its successor begins with everything.
    });
    return this.#parameterTurn;
  }

  #muteMessage() {
    if (this.sid === null) return null;
    this.#muteUnconfirmed = true;
    return { type: 'mute', track: this.sid, muted: this.muted };
  }
}

/** The browser's codecs of these names in this order, and the helpers that go with them. */
function codecsOf(kind, names) {
  const all = RTCRtpSender.getCapabilities(kind).codecs;
  const named = names.flatMap((name) => all.filter((codec) => sameCodec(codec, kind, name)));
  return [...named, ...all.filter((codec) => sameCodec(codec, kind, 'rtx'))];
}

function sameCodec(codec, kind, name) {
  return codec.mimeType.toLowerCase() === `${kind}/${name}`.toLowerCase();
}
