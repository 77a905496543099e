// A room and a token in ten lines, as JSON for the browser: node ten-lines.mjs ROOM IDENTITY
const { STUBE_URL = 'http://127.0.0.1:7880', STUBE_KEY = 'devkey', STUBE_SECRET = 'devsecret-devsecret-devsecret-dev' } = process.env;
const [name, identity] = process.argv.slice(2);
async function post(path, body) {
  const headers = { Authorization: `Basic ${btoa(`${STUBE_KEY}:${STUBE_SECRET}`)}`, 'Content-Type': 'application/json' };
  return (await fetch(STUBE_URL + path, { method: 'POST', headers, body: JSON.stringify(body) })).json();
}
const { session_url } = await post('/v1/rooms', { name });
const { token } = await post(`/v1/rooms/${encodeURIComponent(name)}/tokens`, { identity });
console.log(JSON.stringify({ session_url, token }));
