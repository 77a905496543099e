// A receiver of webhooks that misbehaves as it is told, and checks every delivery with the receivers' own libraries.
//
// usage: node receiver.mjs JOURNAL, and one line of JSON on standard input:
//   {port, apiKey, apiSecret, hooks: {"/path": {secret, raw?, manner}}}; port 0 takes a free one
// Says its port on standard output, then appends one line of JSON to the journal for each request, before it answers:
// what was received is known, however the receiver ended.

import { appendFileSync, existsSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { WebhookReceiver } from 'livekit-server-sdk';
import { Webhook } from 'standardwebhooks';

const journal = process.argv[2];
const { value: line } = await createInterface({ input: process.stdin })[Symbol.asyncIterator]().next();
const { port, apiKey, apiSecret, hooks } = JSON.parse(line);

/** Requests so far, of this process and those before it. */
const lines = existsSync(journal) ? readFileSync(journal, 'utf8').split('\n').filter(Boolean) : [];
const earlier = lines.map((text) => JSON.parse(text)).filter(({ body }) => body !== undefined);
const count = new Map();
for (const { path } of earlier) count.set(path, (count.get(path) ?? 0) + 1);
const roomsMet = new Set(earlier.map(({ path, room }) => `${path} ${room}`));

const FAILURES = [500, 503, 404, 302];

/** How each manner answers request number `number` (from 1): a status and headers, or null for none. */
const MANNERS = {
  well: () => [204],
  /** The first event of every room: an error of each kind in turn, once. */
  failing: (number, newRoom) => {
    if (!newRoom) return [200];
    const status = FAILURES[MANNERS.failed++ % FAILURES.length];
    return [status, status === 302 ? { Location: '/trap' } : {}];
  },
  failed: 0,
  /** Takes everything and says nothing, until SIGUSR2; then once more. */
  hanging: () => {
    if (MANNERS.silences === 0) return [204];
    MANNERS.silences -= 1;
    return null;
  },
  silences: Infinity,
  busy: (number) => (number === 1 ? [429, { 'Retry-After': '3' }] : [204]),
  gone: (number) => (number === 1 ? [410] : [204]),
  /** Dies of the third. */
  dying: (number) => {
    if (number === 3) process.kill(process.pid, 'SIGKILL');
    return [204];
  },
};

/** What a check came to: "ok", or why not. */
async function outcome(check) {
  try {
    await check();
    return 'ok';
  } catch (error) {
    return `${error.name}: ${error.message}`;
  }
}

/** Both libraries about one delivery. */
async function verify(hook, headers, body) {
  const standard = new Webhook(hook.secret, hook.raw ? { format: 'raw' } : undefined);
  const livekit = new WebhookReceiver(apiKey, apiSecret);
  return {
    standardwebhooks: await outcome(() => standard.verify(body, headers)),
    livekit: await outcome(async () => {
      const event = await livekit.receive(body, headers.authorization);
      const said = JSON.parse(body);
      if (event.event !== said.event || event.id !== said.id || event.room?.sid !== said.room?.sid
        || event.participant?.identity !== said.participant?.identity || event.track?.sid !== said.track?.sid) {
        throw new Error(`it read ${JSON.stringify(event)}`);
      }
    }),
  };
}

const flipped = (text, at) => text.slice(0, at) + String.fromCharCode(text.charCodeAt(at) ^ 1) + text.slice(at + 1);

async function receive(request, response) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const body = Buffer.concat(chunks).toString();
  const path = request.url;
  const number = (count.get(path) ?? 0) + 1;
  count.set(path, number);
  const hook = hooks[path];
  const entry = { at: Date.now(), path, number, method: request.method, headers: request.headers, body };
  if (hook) {
    const { room, seq } = JSON.parse(body);
    Object.assign(entry, { id: request.headers['webhook-id'], room: room.sid, seq });
    entry.verified = await verify(hook, request.headers, body);
    // The same with one bit of the sequence number changed, so that it is known that they look.
    entry.forged = await verify(hook, request.headers, flipped(body, body.lastIndexOf('"seq":') + 6));
  }
  const newRoom = !roomsMet.has(`${path} ${entry.room}`);
  roomsMet.add(`${path} ${entry.room}`);
  response.once('close', () => {
    if (response.writableEnded) return;
    appendFileSync(journal, `${JSON.stringify({ path, number, closedAfterMs: Date.now() - entry.at })}\n`);
  });
  appendFileSync(journal, `${JSON.stringify(entry)}\n`);
  const answer = hook ? MANNERS[hook.manner](number, newRoom) : [204];
  if (answer) response.writeHead(...answer).end();
}

const server = createServer((request, response) => {
  receive(request, response).catch((error) => {
    appendFileSync(journal, `${JSON.stringify({ path: request.url, failed: `${error.stack}` })}\n`);
    response.writeHead(500).end();
  });
});
process.on('SIGUSR2', () => { MANNERS.silences = 1; });
server.listen(port, '127.0.0.1', () => console.log(server.address().port));
