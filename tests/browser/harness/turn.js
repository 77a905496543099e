// Debian's coturn, on free ports, sharing a secret with the server.

import { spawn } from 'node:child_process';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually } from './eventually.js';
import { freeTcpPort } from './server.js';

const TURNSERVER = '/usr/bin/turnserver';

export class Turn {
  #process;

  /** Relays to this address and no other. */
  static async start(secret, peer) {
    const turn = new Turn();
    turn.port = await freeTcpPort();
    const folder = mkdtempSync(join(tmpdir(), 'turn-'));
    const file = join(folder, 'turnserver.conf');
    // As docs/operations.md has it, but for certificates and ports.
    writeFileSync(file, [
      `listening-port=${turn.port}`,
      'use-auth-secret',
      `static-auth-secret=${secret}`,
      'realm=stube.test',
      'fingerprint',
      'no-tls',
      'no-dtls',
      'no-cli',
      'no-multicast-peers',
      'denied-peer-ip=0.0.0.0-255.255.255.255',
      'denied-peer-ip=::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff',
      `allowed-peer-ip=${peer}`,
      `userdb=${join(folder, 'turndb')}`,
      `pidfile=${join(folder, 'pid')}`,
      `log-file=${join(folder, 'log')}`,
      'simple-log',
    ].join('\n'));
    turn.#process = spawn(TURNSERVER, ['-c', file], { stdio: 'ignore' });
    let ended = null;
    turn.#process.on('error', (error) => { ended = error.message; });
    turn.#process.on('exit', (code, signal) => { ended = `exit ${code ?? signal}`; });
    await eventually('coturn listens', () => {
      if (ended) throw Object.assign(new Error(`${TURNSERVER} ended: ${ended}: apt-get install coturn?`), { fatal: true });
      return listens(turn.port);
    });
    return turn;
  }

  stop() {
    this.#process.kill('SIGKILL');
  }
}

function listens(port) {
  return new Promise((done) => {
    const socket = createConnection(port, '127.0.0.1');
    socket.once('connect', () => { socket.destroy(); done(true); });
    socket.once('error', () => done(false));
  });
}
