// A machine of its own for a browser: a network namespace whose one link to this machine can be narrow and lossy.
//
// The namespace has no name. It lives as long as the processes in it, of which the first ends with the test's process,
// however that comes to pass, and its link, queue and rules go with it. Pages reach this machine's loopback ports by a
// relay, so that HTTP is not held up by the link, and origins are as secure as they are here. Needs root and iproute2.

import { execFile, spawn } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { loopback, relay, socket } from './relay.js';

const run = promisify(execFile);

const RELAY = join(import.meta.dirname, 'relay.js');
/** How long a packet may wait in the queue of a narrow link. Routers of people's homes keep one longer. */
const QUEUE_MS = 150;
/** What a link may send at once: no more than two packets, so that a narrow one is narrow at each moment. */
const BURST_BYTES = 3_000;

let made = 0;

export class Namespace {
  #holder;
  #folder = mkdtempSync(join(tmpdir(), 'stube-netns-'));
  #relays = [];
  #link;
  #lines;
  #pid;

  /** With no way but its link. */
  static async start() {
    if (process.getuid() !== 0) throw new Error('network namespaces need root');
    const namespace = new Namespace();
    try {
      await namespace.#hold();
      await namespace.#connect();
    } catch (error) {
      await namespace.stop();
      throw error;
    }
    return namespace;
  }

  async #hold() {
    const program = ['sh', '-c', 'ip link set lo up && exec "$@"', 'sh', process.execPath, RELAY, this.#folder];
    this.#holder = spawn('unshare', ['--net', ...program], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#lines = createInterface({ input: this.#holder.stdout })[Symbol.asyncIterator]();
    this.#holder.on('error', () => {});
    this.#pid = Number(await this.#line());
  }

  /** Pages in here reach this port of this machine's loopback on their own. */
  async letOut(port) {
    this.#relays.push(await relay(socket(this.#folder, port), loopback(port)));
    await this.#tell(`out ${port}`);
  }

  /** This machine reaches this port of the loopback in here on its own. */
  async letIn(port) {
    await this.#tell(`in ${port}`);
    this.#relays.push(await relay(loopback(port), socket(this.#folder, port)));
  }

  async #tell(line) {
    this.#holder.stdin.write(`${line}\n`);
    await this.#line();
  }

  async #line() {
    const { value, done } = await this.#lines.next();
    if (done) throw new Error('the namespace has ended');
    return value;
  }

  /** A link with an address at each end, of the network for tests of RFC 2544; other runs on this machine have others. */
  async #connect() {
    made += 1;
    const network = (process.pid * 8 + made) % (1 << 15);
    const address = (host) => `198.${18 + (network >> 14)}.${(network >> 6) & 255}.${((network & 63) << 2) + host}`;
    this.#link = `stube${process.pid % 100_000}.${made}`;
    this.address = address(2);
    /** This machine's, at the other end. */
    this.gateway = address(1);
    await run('ip', ['link', 'add', this.#link, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', String(this.#pid)]);
    await run('ip', ['address', 'add', `${address(1)}/30`, 'dev', this.#link]);
    // One datagram at a time, as on a wire: else a burst that the server hands over as one is held up or lost as one.
    await run('ip', ['link', 'set', this.#link, 'gso_max_segs', '1', 'up']);
    await this.#within('ip', 'address', 'add', `${address(2)}/30`, 'dev', 'eth0');
    await this.#within('ip', 'link', 'set', 'eth0', 'up');
    await this.#within('ip', 'route', 'add', 'default', 'via', address(1));
  }

  /** A program that runs another one in here, with its arguments; for what starts browsers. */
  executable(path) {
    const script = join(this.#folder, path.replaceAll('/', '_'));
    writeFileSync(script, `#!/bin/sh\nexec nsenter --net=/proc/${this.#pid}/ns/net ${path} "$@"\n`);
    chmodSync(script, 0o755);
    return script;
  }

  /** From now on so much gets in. */
  async narrow(kbitPerSecond) {
    const limit = ['rate', `${kbitPerSecond}kbit`, 'burst', String(BURST_BYTES), 'latency', `${QUEUE_MS}ms`];
    await run('tc', ['qdisc', 'replace', 'dev', this.#link, 'root', 'tbf', ...limit]);
  }

  /** From now on all gets in. */
  async widen() {
    await run('tc', ['qdisc', 'delete', 'dev', this.#link, 'root']).catch(() => {});
  }

  /** What the narrow link has let pass and dropped since it became narrow. */
  async queue() {
    const [queue] = JSON.parse((await run('tc', ['-json', '-statistics', 'qdisc', 'show', 'dev', this.#link])).stdout);
    return { bytes: queue.bytes, packets: queue.packets, drops: queue.drops };
  }

  /** From now on this share of the datagrams that come gets lost. */
  async lose(percent) {
    // nftables knows no comparison that is always true.
    const chosen = percent < 100 ? `numgen random mod 1000 < ${percent * 10} ` : '';
    await this.#within('nft', [
      'add table inet loss',
      'add chain inet loss input { type filter hook input priority 0; }',
      'add rule inet loss input ip protocol udp counter comment "seen"',
      `add rule inet loss input ip protocol udp ${chosen}counter drop comment "lost"`,
    ].join('; '));
  }

  /** @returns {Promise<{seen: number, lost: number}>} datagrams since the loss began */
  async counts() {
    const { stdout } = await this.#within('nft', 'list table inet loss');
    const count = (name) => Number(stdout.match(new RegExp(`packets (\\d+) .*"${name}"`))[1]);
    return { seen: count('seen'), lost: count('lost') };
  }

  /** From now on nothing gets out but TCP to this port, as from behind a strict firewall. */
  async allowOnlyTcp(port) {
    await this.#within('nft', [
      'add table inet firewall',
      'add chain inet firewall output { type filter hook output priority 0; policy drop; }',
      'add rule inet firewall output oif lo accept',
      `add rule inet firewall output tcp dport ${port} accept`,
      'add rule inet firewall output counter comment "stopped"',
    ].join('; '));
  }

  /** What the firewall has stopped so far. */
  async stopped() {
    const { stdout } = await this.#within('nft', 'list table inet firewall');
    return Number(stdout.match(/packets (\d+) .*"stopped"/)[1]);
  }

  /** Nothing gets lost any more. */
  async calm() {
    await this.#within('nft', 'add table inet loss; delete table inet loss');
  }

  /** Whatever runs in here must have been ended before: it keeps the namespace. */
  async stop() {
    for (const server of this.#relays) server.close();
    // The kernel takes its time to remove a namespace, and the link with it.
    if (this.#link) await run('ip', ['link', 'delete', this.#link]).catch(() => {});
    if (this.#holder && this.#holder.exitCode === null) {
      const ended = new Promise((done) => { this.#holder.once('exit', done); });
      this.#holder.stdin.end();
      await ended;
    }
    rmSync(this.#folder, { recursive: true, force: true });
  }

  #within(command, ...rest) {
    return run('nsenter', [`--net=/proc/${this.#pid}/ns/net`, command, ...rest]);
  }
}
