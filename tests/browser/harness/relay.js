// Joins TCP ports of loopback to Unix sockets, which reach across network namespaces where loopback does not.
//
// As a program: `node relay.js FOLDER`. It says its process id, then takes lines from its standard input, answers each
// with the same line when it is done, and ends with its input. `out PORT` takes connections to the port here and hands
// them to whoever serves the socket FOLDER/PORT; `in PORT` serves that socket and connects to the port.

import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

/** @returns {Promise<import('node:net').Server>} */
export function relay(from, to) {
  const server = createServer((one) => {
    const other = connect(to);
    for (const [here, there] of [[one, other], [other, one]]) {
      here.pipe(there);
      here.on('error', () => there.destroy());
      here.on('close', () => there.destroy());
    }
  });
  return new Promise((done, fail) => {
    server.on('error', fail).listen(from, () => done(server));
  });
}

export const loopback = (port) => ({ host: '127.0.0.1', port });
export const socket = (folder, port) => ({ path: join(folder, String(port)) });

if (process.argv[1] === import.meta.filename) {
  const folder = process.argv[2];
  console.log(process.pid);
  for await (const line of createInterface({ input: process.stdin })) {
    const [direction, port] = line.split(' ');
    const ends = [loopback(Number(port)), socket(folder, port)];
    await relay(...(direction === 'out' ? ends : ends.reverse()));
    console.log(line);
  }
  process.exit();
}
