// Mints tokens with livekit-server-sdk. Standard input: a JSON list of
// {key, secret, identity?, name?, metadata?, attributes?, ttl?, grant}; standard output: a JSON list of tokens.
// `canPublishSources` names sources as the SDK's enum does ("CAMERA"). Every token also carries claims of LiveKit's
// that mean nothing here.

import { text } from 'node:stream/consumers';
import { AccessToken, TrackSource } from 'livekit-server-sdk';

const tokens = [];
for (const { key, secret, grant, ...options } of JSON.parse(await text(process.stdin))) {
  const token = new AccessToken(key, secret, options);
  const sources = grant.canPublishSources?.map((name) => TrackSource[name]);
  token.addGrant({ ...grant, ...(sources && { canPublishSources: sources }) });
  token.addSIPGrant({ call: true });
  token.kind = 'agent';
  token.sha256 = 'c2hhMjU2';
  tokens.push(await token.toJwt());
}
console.log(JSON.stringify(tokens));
