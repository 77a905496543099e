/** The statistics panel. */

const EVERY_MS = 1_000;

export class Statistics {
  #totals = document.querySelector('#totals');
  #received = document.querySelector('#received');
  #sent = document.querySelector('#sent');
  #call = null;
  #stop = null;

  attach(call) {
    this.#call = call;
    call.on('stats', (summary) => this.#show(summary));
  }

  /** Reads statistics only while somebody looks at them. */
  watch(isOpen) {
    this.#stop?.();
    this.#stop = isOpen ? this.#call.watchStats(EVERY_MS) : null;
  }

  #show(summary) {
    const totals = [
      ['Receiving', rate(summary.bitrateIn)],
      ['Sending', rate(summary.bitrateOut)],
      ['Lost on the way here', share(summary.lossIn)],
      ['Lost on the way there', share(summary.lossOut)],
      ['Round trip', summary.roundTripMs === null ? '–' : `${Math.round(summary.roundTripMs)} ms`],
      ['Transport', summary.transport?.toUpperCase() ?? '–'],
    ];
    this.#totals.replaceChildren(...totals.flatMap(([name, value]) => [element('dt', name), element('dd', value)]));
    this.#received.replaceChildren(...this.#receivedRows(summary.slots));
    this.#sent.replaceChildren(...this.#sentRows(summary.sent));
  }

  #receivedRows(received) {
    const rows = [];
    for (const slot of this.#call.slots.values()) {
      const stats = received.get(slot.mid);
      if (slot.track === null || stats === undefined) continue;
      const participant = this.#call.participants.get(slot.participant);
      const line = row([participant?.name || participant?.identity || '–', picture(stats), kilobits(stats.bitrate)]);
      line.dataset.frames = stats.framesDecoded;
      rows.push(line);
    }
    return rows;
  }

  #sentRows(sent) {
    const rows = [];
    for (const { source, transceiver } of this.#call.publications.values()) {
      const name = source.replaceAll('_', ' ');
      for (const line of sent.filter(({ mid }) => mid === transceiver.mid)) {
        const limit = line.limitedBy ? `, held back by ${line.limitedBy}` : '';
        rows.push(row([line.rid ? `${name} (${line.rid})` : name, picture(line) + limit, kilobits(line.bitrate)]));
      }
    }
    return rows;
  }
}

function picture({ kind, width, height, framesPerSecond, codec }) {
  const name = codec ?? '';
  if (kind === 'audio') return name || 'sound';
  return height > 0 ? `${width}×${height}, ${Math.round(framesPerSecond)} fps ${name}` : 'off';
}

function rate(bits) {
  return bits >= 1_000_000 ? `${(bits / 1_000_000).toFixed(1)} Mbit/s` : `${kilobits(bits)} kbit/s`;
}

function kilobits(bits) {
  return String(Math.round(bits / 1000));
}

function share(part) {
  return part === null ? '–' : `${(part * 100).toFixed(1)} %`;
}

function row(cells) {
  const line = element('tr', '');
  line.append(...cells.map((text) => element('td', text)));
  return line;
}

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}
