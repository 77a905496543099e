// Debian's coturn, set up as docs/operations.md says, on free ports, sharing a secret with the server.

import { execFileSync, spawn } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually } from './eventually.js';
import { REPOSITORY, freeTcpPort } from './server.js';

const TURNSERVER = '/usr/bin/turnserver';
/** As in its unit. */
const USER = 'turnserver';
/** Ports that only somebody with the right to them may have; 443 itself may be taken. */
const LOW_PORTS = { first: 700, last: 899 };

export class Turn {
  #process;
  #folder;
  #hook;

  /** Relays to this address and no other. */
  static async start(secret, peer) {
    const turn = new Turn();
    turn.port = await freeTcpPort();
    turn.tlsPort = await freeLowPort();
    turn.#folder = mkdtempSync(join(tmpdir(), 'turn-'));
    const certificates = join(turn.#folder, 'coturn');
    turn.#hook = join(turn.#folder, 'coturn-certificate');
    writeFileSync(turn.#hook, replaced(written('RENEWED_LINEAGE'), { '/etc/coturn': certificates, 'systemctl .*': ':' }));
    chmodSync(turn.#hook, 0o755);
    turn.renew('first');
    const file = join(turn.#folder, 'turnserver.conf');
    const shown = replaced(written('tls-listening-port='), {
      'listening-port=3478': `listening-port=${turn.port}`,
      'tls-listening-port=443': `tls-listening-port=${turn.tlsPort}`,
      '/etc/coturn/': `${certificates}/`,
      'static-auth-secret=….*': `static-auth-secret=${secret}`,
      'allowed-peer-ip=203.0.113.7 .*': `allowed-peer-ip=${peer}`,
    });
    writeFileSync(file, `${shown}\nuserdb=${join(turn.#folder, 'turndb')}\npidfile=${join(turn.#folder, 'pid')}\n`);
    // It writes its database there.
    execFileSync('chown', [`:${USER}`, turn.#folder, file]);
    chmodSync(turn.#folder, 0o770);
    const [, capability] = written('[Service]', 'Ambient').match(/^AmbientCapabilities=CAP_(\w+)$/m);
    const may = `+${capability.toLowerCase()}`;
    turn.#process = spawn('setpriv', [
      '--reuid', USER, '--regid', USER, '--clear-groups', '--inh-caps', may, '--ambient-caps', may, TURNSERVER, '-c', file,
    ], { stdio: 'ignore' });
    let ended = null;
    turn.#process.on('error', (error) => { ended = error.message; });
    turn.#process.on('exit', (code, signal) => { ended = `exit ${code ?? signal}`; });
    await eventually('coturn listens', () => {
      if (ended) throw Object.assign(new Error(`${TURNSERVER} ended: ${ended}: apt-get install coturn?`), { fatal: true });
      return listens(turn.port);
    });
    return turn;
  }

  /** As certbot does: a new certificate in a folder that only root may enter, the hook, and the signal that it sends. */
  renew(name) {
    const lineage = join(this.#folder, 'live');
    mkdirSync(lineage, { recursive: true, mode: 0o700 });
    const [key, chain] = ['privkey.pem', 'fullchain.pem'].map((file) => join(lineage, file));
    execFileSync('openssl', [
      'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2',
      '-subj', `/CN=${name}`, '-addext', 'subjectAltName=DNS:turn.example.org', '-keyout', key, '-out', chain,
    ], { stdio: 'ignore' });
    execFileSync(this.#hook, { env: { ...process.env, RENEWED_LINEAGE: lineage } });
    const [, signal] = written('RENEWED_LINEAGE').match(/^systemctl kill --signal=(\w+) coturn/m);
    this.#process?.kill(`SIG${signal}`);
    return readFileSync(chain);
  }

  /** The certificate in force. */
  get certificate() {
    return readFileSync(join(this.#folder, 'live/fullchain.pem'));
  }

  stop() {
    this.#process.kill('SIGKILL');
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** The block of docs/operations.md that holds all of these. */
function written(...words) {
  const page = readFileSync(join(REPOSITORY, 'docs/operations.md'), 'utf8');
  const blocks = page.match(/(?:^ {6}\S.*\n)+/gm).map((block) => block.replace(/^ {6}/gm, ''));
  const [block, another] = blocks.filter((one) => words.every((word) => one.includes(word)));
  if (!block || another) throw new Error(`docs/operations.md has not one block with ${words.join(' and ')}`);
  return block;
}

/** The text with each line or part, a regular expression, replaced; all have to be there. */
function replaced(text, parts) {
  return Object.entries(parts).reduce((now, [old, part]) => {
    const pattern = new RegExp(old.startsWith('/') ? old : `^${old}$`, 'gm');
    if (!pattern.test(now)) throw new Error(`docs/operations.md has no ${old}`);
    return now.replace(pattern, () => part);
  }, text);
}

async function freeLowPort() {
  for (let port = LOW_PORTS.first; port <= LOW_PORTS.last; port += 1) {
    if (!await listens(port)) return port;
  }
  throw new Error(`no free port in ${LOW_PORTS.first}–${LOW_PORTS.last}`);
}

function listens(port) {
  return new Promise((done) => {
    const socket = createConnection(port, '127.0.0.1');
    socket.once('connect', () => { socket.destroy(); done(true); });
    socket.once('error', () => done(false));
  });
}
