// Receives webhooks: npm install standardwebhooks, WEBHOOK_SECRET=whsec_… node webhook.mjs
// In the server's configuration: [[webhook]] url = "http://127.0.0.1:3001/stube", secret = "whsec_…"
import { createServer } from 'node:http';
import { text } from 'node:stream/consumers';
import { Webhook } from 'standardwebhooks';

const webhook = new Webhook(process.env.WEBHOOK_SECRET);
const seen = new Set(); // yours is a table: deliveries come at least once, also days later

createServer(async (request, response) => {
  let event;
  try {
    event = webhook.verify(await text(request), request.headers);
  } catch {
    return response.writeHead(401).end();
  }
  if (!seen.has(event.id)) {
    seen.add(event.id);
    const { identity, duration_ms: ms } = event.participant ?? {}; // null once the person was erased
    console.log(event.event, event.room?.name ?? event.quota?.name, identity ?? '', ms === undefined ? '' : `${ms} ms`);
  }
  return response.writeHead(204).end(); // within 10 s, so put long work into a queue
}).listen(process.env.PORT ?? 3001, '127.0.0.1', function ready() { console.log(`listening on ${this.address().port}`); });
