// Trouble on chosen flows: an nftables table of its own on the loopback path, which every datagram here takes.
//
// The kernel drops an owned table when the process that made it ends, however that comes to pass: nothing outlives a
// test that fails or is killed. Needs root, or sudo without a password.

import { execFile, spawn } from 'node:child_process';
import { promisify } from 'node:util';
import { eventually } from './eventually.js';

const run = promisify(execFile);
const AS_ROOT = process.getuid() === 0 ? [] : ['sudo', '-n'];

let made = 0;

export class Firewall {
  #name = `stube_test_${process.pid}_${made += 1}`;
  #nft;
  #said = '';

  static async start() {
    const firewall = new Firewall();
    const [command, ...rest] = [...AS_ROOT, 'nft', '-i'];
    firewall.#nft = spawn(command, rest, { stdio: ['pipe', 'ignore', 'pipe'] });
    firewall.#nft.stderr.on('data', (text) => { firewall.#said += text; });
    firewall.#nft.on('error', (error) => { firewall.#said += error.message; });
    firewall.#tell(`add table inet ${firewall.#name} { flags owner; }`);
    // What is dropped on its way in was sent as far as the sender can tell: `output` would fail its send call.
    await firewall.#chain('input', 'filter hook input priority 0');
    return firewall;
  }

  /** Loses this share of the datagrams from one UDP port to another. */
  async lose(percent, from, to) {
    const rule = `udp sport ${from} udp dport ${to}`;
    // The first counts what passes by, the second what is lost.
    this.#tell(`add rule inet ${this.#name} input ${rule} counter comment "seen"`);
    this.#tell(`add rule inet ${this.#name} input ${rule} numgen random mod 100 < ${percent} counter drop comment "lost"`);
    await eventually('the loss is set up', async () => (await this.#rules()).includes('"lost"'));
  }

  /** @returns {Promise<{seen: number, lost: number}>} datagrams since the loss began */
  async counts() {
    const rules = await this.#rules();
    const count = (name) => Number(rules.match(new RegExp(`packets (\\d+) .*"${name}"`))?.[1] ?? NaN);
    return { seen: count('seen'), lost: count('lost') };
  }

  /**
   * What a NAT does that forgets a mapping and makes another: from now on the server sees a client's port as `alias`,
   * and what it sends to the port itself is lost.
   */
  async rebind(port, server, alias) {
    await this.#chain('outgoing', 'filter hook output priority 0');
    await this.#chain('incoming', 'filter hook prerouting priority 0');
    // One line is one transaction.
    this.#tell([
      `add rule inet ${this.#name} outgoing udp sport ${port} udp dport ${server} udp sport set ${alias}`,
      `add rule inet ${this.#name} incoming udp sport ${server} udp dport ${alias} udp dport set ${port} accept`,
      `add rule inet ${this.#name} incoming udp sport ${server} udp dport ${port} counter drop comment "rebound"`,
    ].join('; '));
    await eventually('the mapping is in place', async () => (await this.#rules()).includes('"rebound"'));
  }

  /** Loses nothing any more. */
  async calm() {
    this.#tell(`flush chain inet ${this.#name} input`);
    await eventually('the loss is over', async () => !(await this.#rules()).includes('"lost"'));
  }

  stop() {
    const ended = new Promise((done) => { this.#nft.once('exit', done); });
    if (this.#nft.exitCode === null) this.#nft.stdin.end();
    return this.#nft.exitCode ?? ended;
  }

  async #chain(name, hook) {
    this.#tell(`add chain inet ${this.#name} ${name} { type ${hook}; }`);
    await eventually('nftables works (root? package nftables?)', async () => (await this.#rules()).includes(`chain ${name}`));
  }

  #tell(command) {
    this.#nft.stdin.write(`${command}\n`);
  }

  async #rules() {
    const [command, ...rest] = [...AS_ROOT, 'nft', 'list', 'table', 'inet', this.#name];
    try {
      return (await run(command, rest)).stdout;
    } catch (error) {
      throw new Error(`${this.#said} ${error.message}`);
    }
  }
}
