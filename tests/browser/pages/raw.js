// The contract by hand: RTCPeerConnection and fetch, nothing else. One page holds several connections, by name.

const connections = new Map();

globalThis.raw = {
  /** Joins; `lines` are the media lines in order, such as `send audio` or `receive video`. */
  async join({ name, url, token, lines }) {
    const pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
    const channel = pc.createDataChannel('stube', { protocol: 'stube.v1' });
    const one = { pc, channel, messages: [], etag: null, url: null };
    connections.set(name, one);
    channel.addEventListener('message', ({ data }) => one.messages.push(JSON.parse(data)));
    for (const line of lines) await addLine(pc, line);
    await pc.setLocalDescription(await pc.createOffer());
    const response = await fetch(url, {
      method: 'POST',
      headers: { 'Content-Type': 'application/sdp', Authorization: `Bearer ${token}` },
      body: pc.localDescription.sdp,
    });
    const answer = await response.text();
    one.url = new URL(response.headers.get('Location'), response.url).href;
    one.etag = response.headers.get('ETag');
    await pc.setRemoteDescription({ type: 'answer', sdp: answer });
    return {
      status: response.status,
      type: response.headers.get('Content-Type'),
      location: response.headers.get('Location'),
      etag: one.etag,
      answer,
      offer: pc.localDescription.sdp,
    };
  },

  messages: (name) => connections.get(name).messages,
  state: (name) => connections.get(name).pc.connectionState,
  send: ({ name, message }) => connections.get(name).channel.send(JSON.stringify(message)),
  sendText: ({ name, text }) => connections.get(name).channel.send(text),

  /** A line of each, and a further offer. */
  async addLines({ name, lines }) {
    const one = connections.get(name);
    for (const line of lines) await addLine(one.pc, line);
    await one.pc.setLocalDescription(await one.pc.createOffer());
    const response = await patch(one, 'application/sdp', one.pc.localDescription.sdp, { 'If-Match': one.etag });
    await one.pc.setRemoteDescription({ type: 'answer', sdp: response.text });
    return response.status;
  },

  /** PATCH as told; the session's own offer or ETag where `body` or `ifMatch` is `current`. */
  async patch({ name, type, body, ifMatch }) {
    const one = connections.get(name);
    const headers = ifMatch === undefined ? {} : { 'If-Match': ifMatch === 'current' ? one.etag : ifMatch };
    return patch(one, type, body === 'current' ? one.pc.localDescription.sdp : body, headers);
  },

  /** One candidate as RFC 8840 writes it. */
  candidateFragment(name) {
    const { sdp } = connections.get(name).pc.localDescription;
    const find = (pattern) => sdp.match(pattern)[0].trim();
    return [
      find(/^a=ice-ufrag:.*/m),
      find(/^a=ice-pwd:.*/m),
      'm=audio 9 UDP/TLS/RTP/SAVPF 0',
      find(/^a=mid:.*/m),
      'a=candidate:1 1 udp 2130706431 192.0.2.77 50000 typ host',
      'a=end-of-candidates',
      '',
    ].join('\r\n');
  },

  async remove(name) {
    const { pc, url } = connections.get(name);
    const response = await fetch(url, { method: 'DELETE' });
    pc.close();
    return response.status;
  },

  /** Frames, packets and sound energy by mid. */
  async received(name) {
    const reports = [...(await connections.get(name).pc.getStats()).values()];
    return Object.fromEntries(reports.filter(({ type }) => type === 'inbound-rtp').map((report) => [report.mid, {
      kind: report.kind,
      frames: report.framesDecoded ?? 0,
      energy: report.totalAudioEnergy ?? 0,
    }]));
  },
};

async function addLine(pc, line) {
  const [direction, kind] = line.split(' ');
  if (direction === 'receive') {
    const { receiver } = pc.addTransceiver(kind, { direction: 'recvonly' });
    const player = document.createElement(kind);
    Object.assign(player, { srcObject: new MediaStream([receiver.track]), autoplay: true, muted: kind === 'video' });
    document.body.append(player);
    return;
  }
  const wanted = kind === 'audio'
    ? { audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false } }
    : { video: { width: 320, height: 180, frameRate: 15 } };
  const [track] = (await navigator.mediaDevices.getUserMedia(wanted)).getTracks();
  pc.addTransceiver(track, { direction: 'sendonly' });
}

async function patch({ url }, type, body, headers) {
  const response = await fetch(url, { method: 'PATCH', headers: { 'Content-Type': type, ...headers }, body });
  const text = await response.text();
  const problem = text.startsWith('{') ? JSON.parse(text) : null;
  return { status: response.status, text, code: problem?.code ?? null, etag: response.headers.get('ETag') };
}
