// A map service's backend: GET /join?room=…&identity=… allocates the room and hands a token to the browser.
//   node backend.mjs, then open http://127.0.0.1:3000/ in two tabs
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';

const { STUBE_URL = 'http://127.0.0.1:7880', STUBE_KEY = 'devkey', STUBE_SECRET = 'devsecret-devsecret-devsecret-dev', PORT = 3000 } = process.env;
const Authorization = `Basic ${Buffer.from(`${STUBE_KEY}:${STUBE_SECRET}`).toString('base64')}`;

async function post(path, body) {
  const answer = await fetch(STUBE_URL + path, { method: 'POST', headers: { Authorization, 'Content-Type': 'application/json' }, body: JSON.stringify(body) });
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
  return answer.json();
}

async function join(name, identity) {
  const room = await post('/v1/rooms', { name }); // 201, or 200 if it is there already
  const { token } = await post(`/v1/rooms/${encodeURIComponent(name)}/tokens`, { identity });
  return { session_url: room.session_url, token };
}

createServer(async (request, response) => {
  const { pathname, searchParams } = new URL(request.url, 'http://backend');
  if (pathname === '/') return response.end(await readFile(new URL('browser.html', import.meta.url)));
  const say = (status, answer) => response.writeHead(status, { 'Content-Type': 'application/json' }).end(JSON.stringify(answer));
  // Your own login says who asks, and your map where they stand; here the query does. Identities are pseudonyms.
  const { room, identity } = Object.fromEntries(searchParams);
  if (!room || !identity) return say(400, { error: 'expected /join?room=…&identity=…' });
  return join(room, identity).then((answer) => say(200, answer), (error) => say(502, { error: error.message }));
}).listen(PORT, '127.0.0.1', function ready() { console.log(`http://127.0.0.1:${this.address().port}/`); });
