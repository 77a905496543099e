// A network that lets nothing out but TCP, to one port: HTTPS and media share it.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { startChromium } from './harness/browsers.js';
import { Namespace } from './harness/netns.js';
import { Peer, assertFullMesh } from './harness/peer.js';
import { Server, freeTcpPort } from './harness/server.js';
import { startSite } from './harness/site.js';

const run = promisify(execFile);

const CONNECTED_WITHIN_MS = 10_000;
const SECRET = 'not-the-shipped-secret-but-one-as-long';
/** The certificate is its own root. */
const TRUSTING = ['--ignore-certificate-errors'];

describe('behind a firewall', () => {
  const folder = mkdtempSync(join(tmpdir(), 'stube-tls-'));
  const browsers = {};
  let site;
  let home;
  let server;
  let port;

  before(async () => {
    process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0';
    site = await startSite();
    home = await Namespace.start();
    port = await freeTcpPort();
    const [certificate, key] = [join(folder, 'chain.pem'), join(folder, 'key.pem')];
    await run('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2',
      '-subj', '/CN=sfu', '-addext', `subjectAltName=IP:${home.gateway}`, '-keyout', key, '-out', certificate]);
    server = await Server.start('firewalled', {
      STUBE__KEYS__devkey: SECRET,
      STUBE__HTTP__LISTEN: `0.0.0.0:${port}`,
      STUBE__HTTP__TLS__CERTIFICATE: certificate,
      STUBE__HTTP__TLS__KEY: key,
      STUBE__MEDIA__TCP_LISTEN: `0.0.0.0:${port}`,
      STUBE__MEDIA__ADVERTISE: home.gateway,
    });
    server.base = `https://${home.gateway}:${port}`;
    server.credentials = `Basic ${Buffer.from(`devkey:${SECRET}`).toString('base64')}`;
    await home.letOut(Number(new URL(site.url).port));
    browsers.outside = await startChromium(undefined, TRUSTING);
    browsers.inside = await startChromium(home, TRUSTING);
  });
  after(async () => {
    for (const browser of Object.values(browsers)) await browser.close();
    await server?.stop();
    await home?.stop();
    site.close();
    rmSync(folder, { recursive: true, force: true });
    delete process.env.NODE_TLS_REJECT_UNAUTHORIZED;
  });

  test('without UDP Chromium is in the call within ten seconds, on the port of HTTPS', async (context) => {
    const room = await server.room('office');
    await home.lose(100);
    const outside = await Peer.join({ site, server, browser: browsers.outside }, room, 'outside');
    const began = performance.now();
    const inside = await Peer.join({ site, server, browser: browsers.inside }, room, 'inside');
    await inside.hears('outside', 'camera');
    const took = performance.now() - began;
    context.diagnostic(`a picture ${Math.round(took)} ms after the page was opened`);
    assert.ok(took < CONNECTED_WITHIN_MS, `after ${took} ms`);
    await assertFullMesh([outside, inside]);
    assert.equal((await inside.do('summary')).transport, 'tcp');
    assert.equal((await outside.do('summary')).transport, 'udp');
    const [pair] = (await inside.reports('candidate-pair')).filter(({ nominated, state }) => nominated && state === 'succeeded');
    const remote = (await inside.reports('remote-candidate')).find(({ id }) => id === pair.remoteCandidateId);
    assert.deepEqual([remote.protocol, remote.address, remote.port], ['tcp', home.gateway, port]);
    const { seen, lost } = await home.counts();
    context.diagnostic(`${lost} of ${seen} datagrams were lost`);
    assert.ok(seen > 0 && lost === seen, 'UDP was tried, and blocked');
    await Promise.all([outside.leave(), inside.leave()]);
  });
});
