// A web site of its own for the tests' pages, so that every call to the server is a cross-origin one.

import { createReadStream, existsSync } from 'node:fs';
import { createServer } from 'node:http';
import { extname, join, normalize, resolve } from 'node:path';

const HERE = resolve(import.meta.dirname, '..');
const FOLDERS = {
  '/pages/': join(HERE, 'pages'),
  '/web/': resolve(HERE, '../../web'),
  '/whip-whep/': join(HERE, 'node_modules/whip-whep'),
};
const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css' };

/** @returns {Promise<{url: string, close: () => void}>} */
export function startSite() {
  const site = createServer((request, response) => {
    const path = normalize(new URL(request.url, 'http://site').pathname);
    const folder = Object.keys(FOLDERS).find((prefix) => path.startsWith(prefix));
    const file = folder && join(FOLDERS[folder], path.slice(folder.length));
    if (!file || !existsSync(file)) {
      response.writeHead(404).end();
      return;
    }
    response.writeHead(200, { 'Content-Type': TYPES[extname(file)] ?? 'application/octet-stream' });
    createReadStream(file).pipe(response);
  });
  return new Promise((done) => {
    site.listen(0, '127.0.0.1', () => {
      done({ url: `http://127.0.0.1:${site.address().port}`, close: () => site.close() });
    });
  });
}
