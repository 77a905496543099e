// The real binary, on free ports, in a directory of its own.

import { spawn } from 'node:child_process';
import { createWriteStream, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { createSocket } from 'node:dgram';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { eventually } from './eventually.js';

export const REPOSITORY = resolve(import.meta.dirname, '../../..');
export const BINARY = resolve(REPOSITORY, process.env.STUBE_BIN ?? 'target/debug/stube');
const CONFIG = join(REPOSITORY, 'config.toml');
export const ARTEFACTS = join(REPOSITORY, 'tests/artefacts');

/** The key that config.toml ships. */
const BASIC = `Basic ${Buffer.from('devkey:devsecret-devsecret-devsecret-dev').toString('base64')}`;

export class Server {
  /** Who calls it. */
  credentials = BASIC;
  #process = null;
  #environment;
  #directory = mkdtempSync(join(tmpdir(), 'stube-'));
  #log;

  /**
   * @param {string} name of the test file, for the log
   * @param {Record<string, string>} [environment]
   * @param {string} [sections] of the configuration, beside those that are shipped
   */
  static async start(name, environment = {}, sections = '') {
    const server = new Server();
    writeFileSync(server.config, `${readFileSync(CONFIG, 'utf8')}\n${sections}`);
    const [http, admin, tcp] = await Promise.all([freeTcpPort(), freeTcpPort(), freeTcpPort()]);
    server.base = `http://127.0.0.1:${http}`;
    server.admin = `http://127.0.0.1:${admin}`;
    server.#environment = {
      STUBE__HTTP__LISTEN: `127.0.0.1:${http}`,
      STUBE__ADMIN__LISTEN: `127.0.0.1:${admin}`,
      STUBE__MEDIA__UDP_LISTEN: `0.0.0.0:${await freeUdpPort()}`,
      STUBE__MEDIA__TCP_LISTEN: `0.0.0.0:${tcp}`,
      ...environment,
    };
    mkdirSync(ARTEFACTS, { recursive: true });
    server.#log = createWriteStream(join(ARTEFACTS, `server-${name}.log`));
    await server.run();
    return server;
  }

  /** Starts the process; also after {@link Server#stop}, on the same ports. */
  async run() {
    const child = spawn(BINARY, ['serve', '--config', this.config], {
      cwd: this.#directory,
      env: { ...process.env, ...this.#environment },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    child.stdout.pipe(this.#log, { end: false });
    child.stderr.pipe(this.#log, { end: false });
    this.#process = child;
    let ended = null;
    child.on('error', (error) => { ended = error.message; });
    child.on('exit', (code, signal) => { ended = `exit ${code ?? signal}`; });
    try {
      await eventually('the server is ready', async () => {
        if (ended) throw Object.assign(new Error(`${BINARY} ended: ${ended}; see ${this.#log.path}`), { fatal: true });
        return (await fetch(`${this.admin}/readyz`)).ok;
      }, 20_000);
    } catch (error) {
      child.kill('SIGKILL');
      throw error;
    }
  }

  /** SIGTERM; resolves with the exit code. */
  stop() {
    const child = this.#process;
    if (child.exitCode !== null) return child.exitCode;
    const ended = new Promise((done) => child.once('exit', (code) => done(code)));
    child.kill('SIGTERM');
    return ended;
  }

  /** SIGHUP, by which it reads its configuration anew. */
  hangUp() {
    this.#process.kill('SIGHUP');
  }

  /** SIGKILL, as if the machine had lost its power; resolves when it is gone. */
  kill() {
    const child = this.#process;
    const ended = new Promise((done) => child.once('exit', done));
    child.kill('SIGKILL');
    return ended;
  }

  /** The configuration it was started with. */
  get config() {
    return join(this.#directory, 'config.toml');
  }

  /** Where it runs, and where its ledger is. */
  get directory() {
    return this.#directory;
  }

  get logPath() {
    return this.#log.path;
  }

  get sessions() {
    return `${this.base}/v1/sessions`;
  }

  /** One call of the server-to-server API. */
  async api(method, path, body) {
    const response = await fetch(this.base + path, {
      method,
      headers: { Authorization: this.credentials, ...(body && { 'Content-Type': 'application/json' }) },
      body: body && JSON.stringify(body),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return text === '' ? null : JSON.parse(text);
  }

  /** Allocates a room nobody else uses; returns its name. */
  async room(label) {
    const name = `${label}-${Math.random().toString(36).slice(2, 8)}`;
    await this.api('POST', '/v1/rooms', { name });
    return name;
  }

  /** A ticket for someone. */
  async token(room, identity) {
    const path = `/v1/rooms/${encodeURIComponent(room)}/tokens`;
    return (await this.api('POST', path, { identity, name: `${identity} of ${room}` })).token;
  }
}

/** One nobody listens on now. */
export function freeTcpPort() {
  return new Promise((done, fail) => {
    const probe = createServer().on('error', fail);
    probe.listen(0, '127.0.0.1', () => {
      const { port } = probe.address();
      probe.close(() => done(port));
    });
  });
}

/** The first of several free ones, for each shard takes the next port. */
function freeUdpPort() {
  return new Promise((done, fail) => {
    const probe = createSocket('udp4').on('error', fail);
    probe.bind(0, () => {
      const { port } = probe.address();
      probe.close(() => done(port));
    });
  });
}
