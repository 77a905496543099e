/**
 * What `getStats()` says, in the few numbers people ask for. Works on the reports of Chromium, Firefox and Safari.
 * @module
 */

/**
 * @typedef {object} Summary
 * @property {number} bitrateIn   bits a second of received media
 * @property {number} bitrateOut  bits a second of sent media
 * @property {number|null} lossIn   share of packets lost on the way to us since the last reading, 0 to 1
 * @property {number|null} lossOut  share of packets lost on the way to the server, as it reported last
 * @property {number|null} roundTripMs
 * @property {string|null} transport  `udp` or `tcp`
 * @property {Map<string, Received>} slots   by mid
 * @property {Sent[]} sent
 *
 * @typedef {object} Received
 * @property {'audio'|'video'} kind
 * @property {number} bitrate
 * @property {number} packets         since the start
 * @property {number} lost            since the start
 * @property {number} framesDecoded   since the start; 0 for audio
 * @property {number} width
 * @property {number} height
 * @property {number} framesPerSecond
 * @property {number} samples         audio samples played since the start
 * @property {number} energy          audio energy since the start; rises only while something is heard
 * @property {string|null} codec
 *
 * @typedef {object} Sent
 * @property {string} mid
 * @property {'audio'|'video'} kind
 * @property {string} rid             empty without simulcast
 * @property {number} bitrate
 * @property {number} framesEncoded
 * @property {number} width
 * @property {number} height
 * @property {number} framesPerSecond
 * @property {string|null} limitedBy  `bandwidth`, `cpu` or null
 * @property {string|null} codec
 */

/** Reads one connection's statistics again and again; rates are between two readings. */
export class StatsMeter {
  #before = new Map();

  /**
   * @param {RTCPeerConnection} pc
   * @returns {Promise<Summary>}
   */
  async read(pc) {
    const report = await pc.getStats();
    const reports = [...report.values()];
    const midOf = midsByTrack(pc);
    const inbound = reports.filter((entry) => entry.type === 'inbound-rtp');
    const outbound = reports.filter((entry) => entry.type === 'outbound-rtp');
    const heard = reports.filter((entry) => entry.type === 'remote-inbound-rtp');

    const slots = new Map();
    let lost = 0;
    let expected = 0;
    for (const entry of inbound) {
      const mid = midOf.get(entry.trackIdentifier) ?? entry.mid;
      slots.set(mid, this.#received(entry, report));
      const newlyLost = Math.max(0, this.#rise(entry, 'packetsLost'));
      lost += newlyLost;
      expected += newlyLost + this.#rise(entry, 'packetsReceived');
    }
    const sent = outbound.map((entry) => this.#sent(entry, report));
    const pair = selectedPair(reports, report);
    const losses = heard.map((entry) => entry.fractionLost).filter((share) => share !== undefined);
    const trips = heard.map((entry) => entry.roundTripTime).filter((time) => time > 0);
    const roundTrip = pair?.currentRoundTripTime ?? (trips.length > 0 ? Math.min(...trips) : null);
    const summary = {
      bitrateIn: sum([...slots.values()].map((slot) => slot.bitrate)),
      bitrateOut: sum(sent.map((line) => line.bitrate)),
      lossIn: expected > 0 ? lost / expected : null,
      lossOut: losses.length > 0 ? Math.max(...losses) : null,
      roundTripMs: roundTrip === null ? null : roundTrip * 1000,
      transport: transportOf(pair, report),
      slots,
      sent,
    };
    this.#before = new Map([...inbound, ...outbound].map((entry) => [entry.id, entry]));
    return summary;
  }

  #received(entry, report) {
    return {
      kind: entry.kind,
      bitrate: this.#bitrate(entry, 'bytesReceived'),
      packets: entry.packetsReceived ?? 0,
      lost: entry.packetsLost ?? 0,
      framesDecoded: entry.framesDecoded ?? 0,
      width: entry.frameWidth ?? 0,
      height: entry.frameHeight ?? 0,
      framesPerSecond: entry.framesPerSecond ?? 0,
      samples: entry.totalSamplesReceived ?? 0,
      energy: entry.totalAudioEnergy ?? 0,
      codec: codecOf(entry, report),
    };
  }

  #sent(entry, report) {
    const limit = entry.qualityLimitationReason;
    return {
      mid: entry.mid,
      kind: entry.kind,
      rid: entry.rid ?? '',
      bitrate: this.#bitrate(entry, 'bytesSent'),
      framesEncoded: entry.framesEncoded ?? 0,
      width: entry.frameWidth ?? 0,
      height: entry.frameHeight ?? 0,
      framesPerSecond: entry.framesPerSecond ?? 0,
      limitedBy: limit === 'bandwidth' || limit === 'cpu' ? limit : null,
      codec: codecOf(entry, report),
    };
  }

  #rise(entry, field) {
    return (entry[field] ?? 0) - (this.#before.get(entry.id)?.[field] ?? 0);
  }

  #bitrate(entry, field) {
    const before = this.#before.get(entry.id);
    if (before === undefined || entry.timestamp <= before.timestamp) return 0;
    return (this.#rise(entry, field) * 8000) / (entry.timestamp - before.timestamp);
  }
}

/** Firefox names a receiver's track in its report, but not always its mid. */
function midsByTrack(pc) {
  return new Map(pc.getTransceivers().map(({ receiver, mid }) => [receiver.track.id, mid]));
}

function selectedPair(reports, report) {
  const transport = reports.find((entry) => entry.type === 'transport' && entry.selectedCandidatePairId);
  if (transport) return report.get(transport.selectedCandidatePairId);
  return reports.find((entry) => entry.type === 'candidate-pair' && entry.nominated && entry.state === 'succeeded');
}

function transportOf(pair, report) {
  return report.get(pair?.localCandidateId)?.protocol ?? null;
}

function codecOf(entry, report) {
  return report.get(entry.codecId)?.mimeType?.split('/')[1] ?? null;
}

function sum(numbers) {
  return numbers.reduce((total, number) => total + number, 0);
}
