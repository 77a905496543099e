// Mints a token without asking the server, with LiveKit's SDK: npm install livekit-server-sdk, node token.mjs ROOM IDENTITY
// The room has to be allocated first, unless rooms.auto_create is on.
import { AccessToken } from 'livekit-server-sdk';

const { STUBE_KEY = 'devkey', STUBE_SECRET = 'devsecret-devsecret-devsecret-dev' } = process.env;
const [room, identity] = process.argv.slice(2);
const token = new AccessToken(STUBE_KEY, STUBE_SECRET, { identity, ttl: '5m' });
token.addGrant({ room, roomJoin: true, canPublish: true, canSubscribe: true });
console.log(await token.toJwt());
