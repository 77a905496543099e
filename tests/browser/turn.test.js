// Clients that reach the server through a TURN server only: Debian's coturn, with the credentials that Stube hands out.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { connect } from 'node:tls';
import { promisify } from 'node:util';
import { startChromium } from './harness/browsers.js';
import { eventually } from './harness/eventually.js';
import { Namespace } from './harness/netns.js';
import { Peer, assertFullMesh } from './harness/peer.js';
import { BINARY } from './harness/server.js';
import { Turn } from './harness/turn.js';
import { useWorld } from './harness/world.js';

const SECRET = 'what-coturn-and-stube-share';
/** How soon a call stands from behind a firewall that lets TCP out to one port alone. */
const BEHIND_FIREWALL_MAX_MS = 10_000;
/** How long coturn may take to answer, or to show another certificate. */
const TLS_MAX_MS = 5_000;

describe('through a TURN server', () => {
  let turn;
  let home;
  let browser;

  const world = useWorld('turn', {}, async () => {
    home = await Namespace.start();
    turn = await Turn.start(SECRET, home.gateway);
    const urls = ['udp', 'tcp'].map((transport) => `turn:${home.gateway}:${turn.port}?transport=${transport}`);
    return `[[ice_server]]\nurls = ${JSON.stringify(urls)}\nsecret = "${SECRET}"\nttl_s = 600\n`;
  });
  after(async () => {
    await browser?.close();
    await home?.stop();
    turn?.stop();
  });

  test('media flows through the relay, with the credentials of the room', async () => {
    const { name, ice_servers: iceServers } = await world.server.api('POST', '/v1/rooms', { name: 'relayed' });
    const [ada, grace] = await Promise.all([
      Peer.join(world, name, 'ada', { iceServers, relayOnly: true }),
      Peer.join(world, name, 'grace'),
    ]);
    await assertFullMesh([ada, grace]);
    const [own] = await ada.way();
    assert.equal(own.candidateType, 'relay');
    await Promise.all([ada.leave(), grace.leave()]);
  });

  test('it speaks TLS on a low port as the user of its unit, and shows a renewed certificate', async (context) => {
    const binding = Buffer.from(`000100002112a442${'5'.repeat(24)}`, 'hex');
    const ask = (ca) => new Promise((done, fail) => {
      const socket = connect({ port: turn.tlsPort, host: '127.0.0.1', servername: 'turn.example.org', ca });
      socket.setTimeout(TLS_MAX_MS, () => socket.destroy(new Error('silence')));
      socket.once('error', fail);
      socket.once('secureConnect', () => socket.write(binding));
      socket.once('data', (answer) => { socket.destroy(); done(answer); });
    });
    const before = turn.certificate;
    const answer = await ask(before);
    assert.equal(answer.readUInt16BE(0), 0x0101, 'a binding success response');
    assert.deepEqual(answer.subarray(8, 20), binding.subarray(8, 20));
    context.diagnostic(`TLS on port ${turn.tlsPort}`);
    const after = turn.renew('second');
    await eventually('the new certificate is shown', () => ask(after), TLS_MAX_MS);
    await assert.rejects(ask(before), /self-signed certificate|unable to verify/);
  });

  test('credentials that were made with another secret get no relay', async () => {
    const { name, ice_servers: [server] } = await world.server.api('POST', '/v1/rooms', { name: 'forged' });
    const iceServers = [{ ...server, credential: Buffer.from('guessed').toString('base64') }];
    await assert.rejects(Peer.join(world, name, 'mallory', { iceServers, relayOnly: true }), /did not welcome us/);
  });

  test('the doctor gets a relay with our credentials, and none with others', async () => {
    const doctor = async (config) => {
      const environment = { ...process.env, STUBE__HTTP__LISTEN: '127.0.0.1:0', STATE_DIRECTORY: world.server.directory };
      const { stdout } = await promisify(execFile)(BINARY, ['doctor', '--json', '--config', config], { env: environment })
        .catch((error) => error);
      return JSON.parse(stdout).findings.filter(({ check }) => check === 'ice_servers');
    };
    for (const { verdict, seen } of await doctor(world.server.config)) assert.equal(verdict, 'ok', seen);
    const other = join(world.server.directory, 'other.toml');
    writeFileSync(other, readFileSync(world.server.config, 'utf8').replace(SECRET, 'another'));
    const findings = await doctor(other);
    assert.deepEqual(findings.map(({ verdict }) => verdict), ['fail', 'fail'], JSON.stringify(findings));
    assert.match(findings[0].advice, /static-auth-secret/);
  });

  test('the client learns the servers from the answer, and uses them when it restarts ICE', async () => {
    const room = await world.server.room('learned');
    const ada = await Peer.join(world, room, 'ada');
    assert.deepEqual(await ada.do('iceServers'), []);
    await ada.do('restartIce');
    const servers = await ada.do('iceServers');
    assert.deepEqual(servers.map(({ urls }) => [urls].flat()[0]), ['udp', 'tcp'].map((transport) => (
      `turn:${home.gateway}:${turn.port}?transport=${transport}`
    )));
    for (const { username, credential } of servers) {
      const [expiry] = username.split(':');
      const left = Number(expiry) - Date.now() / 1000;
      assert.ok(left > 540 && left <= 601, `credentials hold for ${left} s`);
      assert.match(credential, /^[A-Za-z0-9+/]{27}=$/);
    }
    await ada.leave();
  });

  test('a call stands from behind a firewall that lets TCP out to the TURN server alone', async (context) => {
    const { name, ice_servers: iceServers } = await world.server.api('POST', '/v1/rooms', { name: 'walled' });
    for (const url of [world.site.url, world.server.base]) await home.letOut(Number(new URL(url).port));
    await home.allowOnlyTcp(turn.port);
    browser = await startChromium(home);
    const grace = await Peer.join(world, name, 'grace');
    const began = performance.now();
    const ada = await Peer.join({ ...world, browser }, name, 'ada', { iceServers });
    await grace.hears('ada', 'camera', BEHIND_FIREWALL_MAX_MS);
    const took = performance.now() - began;
    context.diagnostic(`seen ${Math.round(took)} ms after the page was opened`);
    assert.ok(took < BEHIND_FIREWALL_MAX_MS, `${took} ms`);
    await ada.hears('grace', 'camera');
    const [own] = await ada.way();
    assert.deepEqual([own.candidateType, own.relayProtocol], ['relay', 'tcp']);
    await eventually('the firewall has stopped what went another way', async () => (await home.stopped()) > 0);
    await Promise.all([ada.leave(), grace.leave()]);
  });
});
