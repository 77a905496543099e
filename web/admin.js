// The operator's page: how this server does, every two seconds, and draining it.

import { fill, say } from './admin-table.js';

const PERIOD_MS = 2_000;
/** How long an answer may take. */
const PATIENCE_MS = 5_000;

/** Shares of a quota, of packets lost, and of a shard's time that are worth a look, and that are bad. */
const QUOTA = [0.8, 1];
const LOSS = [0.02, 0.08];
const BUSY = [0.7, 0.9];
/** Round trips, in milliseconds. */
const ROUND_TRIP = [200, 400];

const NOTHING = { text: '–', tone: 'soft' };

const $ = (id) => document.getElementById(id);

// ---- what is known ---------------------------------------------------------------------------------------------------

let node = null;
let answeredAt = null;
/** The room that is looked at: its id, kept in the address bar. */
let chosen = location.hash.slice(1);
/** Bytes that each participant of the chosen room was sent, when last asked. */
let before = { at: 0, bytes: new Map() };

// ---- words -----------------------------------------------------------------------------------------------------------

const plural = (count, one, several) => `${count} ${count === 1 ? one : several}`;

function duration(ms) {
  const seconds = Math.floor(ms / 1000);
  const [days, hours, minutes] = [Math.floor(seconds / 86_400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  if (days > 0) return `${days} d ${hours} h`;
  if (seconds >= 3600) return `${hours} h ${minutes} min`;
  if (seconds >= 60) return `${minutes} min ${seconds % 60} s`;
  return `${seconds} s`;
}

function bitrate(bps) {
  if (bps >= 1e6) return `${(bps / 1e6).toFixed(2)} Mbit/s`;
  return `${Math.round(bps / 1e3)} kbit/s`;
}

const percent = (ratio, digits = 0) => `${(ratio * 100).toFixed(digits)} %`;
const tone = (value, [warn, bad]) => (value >= bad ? 'bad' : value >= warn ? 'warn' : '');

function amount(quota, value) {
  if (!quota.startsWith('egress')) return value.toLocaleString('en');
  const [unit, size] = value >= 1e12 ? ['TB', 1e12] : value >= 1e9 ? ['GB', 1e9] : ['MB', 1e6];
  return `${(value / size).toFixed(1)} ${unit}`;
}

const QUOTA_NAMES = {
  max_rooms: 'rooms',
  max_participants: 'participants',
  participant_minutes_per_month: 'minutes this month',
  egress_bytes_per_month: 'sent this month',
};

// ---- tables ----------------------------------------------------------------------------------------------------------

const SHARDS = [
  { label: 'Shard', cell: ({ index }) => String(index) },
  { label: 'Busy', figure: true, cell: ({ busy_ratio: busy }) => ({ text: percent(busy), ratio: busy, tone: tone(busy, BUSY) }) },
  { label: 'Rooms', figure: true, cell: ({ rooms }) => String(rooms) },
  { label: 'Participants', figure: true, cell: ({ participants }) => String(participants) },
  { label: '', cell: ({ saturated }) => (saturated ? { text: 'saturated', tone: 'bad' } : '') },
];

const QUOTAS = [
  { label: 'API key', long: true, cell: ({ key, first }) => (first ? key : { text: key, tone: 'soft' }) },
  { label: 'What', long: true, cell: ({ quota }) => QUOTA_NAMES[quota] ?? quota },
  {
    label: 'Used',
    figure: true,
    cell: ({ quota, used, limit }) => (limit === null
      ? amount(quota, used)
      : { text: `${amount(quota, used)} of ${amount(quota, limit)}`, ratio: used / limit, tone: tone(used / limit, QUOTA), title: percent(used / limit) }),
  },
];

const ROOMS = [
  { label: 'Room', long: true, cell: ({ sid, name }) => ({ text: name, action: () => choose(sid) }) },
  { label: 'API key', long: true, cell: ({ key }) => key },
  {
    label: 'Participants',
    figure: true,
    cell: ({ num_participants: now, max_participants: most }) => ({ text: `${now} of ${most}`, ratio: now / most, tone: now >= most ? 'warn' : '' }),
  },
  { label: 'Publishers', figure: true, cell: ({ num_publishers: publishers }) => String(publishers) },
  { label: 'Call', figure: true, cell: ({ call }) => (call ? duration(call.duration_ms) : NOTHING) },
  { label: 'Shard', figure: true, cell: ({ shard }) => String(shard) },
];

const PARTICIPANTS = [
  { label: 'Identity', long: true, cell: ({ identity }) => identity },
  { label: 'State', cell: ({ state }) => (state === 'active' ? { text: state, tone: 'good' } : { text: state, tone: 'warn' }) },
  { label: 'For', figure: true, cell: ({ duration_ms: ms }) => (ms === undefined ? NOTHING : duration(ms)) },
  { label: 'Up', figure: true, cell: ({ up, published }) => (published.length === 0 ? NOTHING : bitrate(up)) },
  { label: 'Down', figure: true, cell: ({ down, received }) => (down === null || received.length === 0 ? NOTHING : bitrate(down)) },
  { label: 'Loss', figure: true, cell: ({ loss_ratio: loss }) => (loss === undefined ? NOTHING : { text: percent(loss, 1), tone: tone(loss, LOSS) }) },
  { label: 'Round trip', figure: true, cell: ({ round_trip_ms: ms }) => (ms === undefined ? NOTHING : { text: `${Math.round(ms)} ms`, tone: tone(ms, ROUND_TRIP) }) },
  { label: 'Path', cell: ({ transport }) => transport?.toUpperCase() ?? NOTHING },
  { label: 'Sends', long: true, cell: ({ published }) => (published.length === 0 ? NOTHING : published.map(sends).join('\n')) },
  { label: 'Gets', long: true, cell: gets },
];

/** A track in words: what it is, and the encodings that come. */
function sends({ source, codec, muted, encodings }) {
  const coming = encodings.filter(({ active }) => active);
  const layers = coming.map(({ rid, height }) => [rid, height && `${height}p`].filter(Boolean).join(' ')).filter(Boolean);
  const state = muted ? ' muted' : coming.length === 0 ? ' silent' : layers.length === 0 ? '' : ` ${layers.join(' + ')}`;
  return `${source.replaceAll('_', ' ')} ${codec}${state}`;
}

/** What somebody receives: how many pictures and sounds, the layers of the pictures, and whether their network is too narrow. */
function gets({ received, limited }) {
  const live = received.filter(({ state }) => state === 'live');
  const paused = received.filter(({ state }) => state === 'paused').length;
  const of = (kind) => live.filter((slot) => slot.kind === kind);
  const layers = of('video').map(({ layer }) => layer && [layer.rid, layer.spatial !== undefined && `S${layer.spatial}`, layer.temporal !== undefined && `T${layer.temporal}`].filter(Boolean).join(' ')).filter(Boolean);
  const parts = [
    of('video').length > 0 && plural(of('video').length, 'picture', 'pictures') + (layers.length > 0 ? ` (${layers.join(', ')})` : ''),
    of('audio').length > 0 && plural(of('audio').length, 'sound', 'sounds'),
    paused > 0 && `${paused} paused`,
    limited && 'network too narrow',
  ].filter(Boolean);
  return parts.length === 0 ? NOTHING : { text: parts.join(', '), tone: limited ? 'warn' : '' };
}

// ---- showing ---------------------------------------------------------------------------------------------------------

function showNode(found) {
  say($('version'), found.version);
  say($('state'), found.state);
  $('state').dataset.tone = found.state === 'running' ? 'good' : 'warn';
  say($('uptime'), `up for ${duration(found.uptime_s * 1000)}`);
  say($('rooms-now'), String(found.rooms));
  say($('participants-now'), String(found.participants));
  say($('sessions-now'), String(found.sessions));
  const busiest = Math.max(0, ...found.shards.map(({ busy_ratio: busy }) => busy));
  say($('busiest'), percent(busiest));
  $('busiest').dataset.tone = tone(busiest, BUSY);
  say($('ledger'), `${duration(found.ledger.checkpoint_age_ms)} ago`);
  $('ledger').dataset.tone = found.ledger.writable ? '' : 'bad';
  $('drain').disabled = found.state !== 'running';
  fill($('shards'), SHARDS, found.shards.map((shard, index) => ({ ...shard, index })), ({ index }) => String(index));
  const { listen, advertised } = found;
  facts($('addresses'), [
    ['HTTP', listen.http],
    ['Admin', listen.admin],
    ['Media listens on', [...listen.udp.map((address) => `UDP ${address}`), ...(listen.tcp ? [`TCP ${listen.tcp}`] : [])].join(', ')],
    ['Clients are told', told(advertised)],
  ]);
}

/** Which ports at which addresses, each named once; every address has every port of its transport. */
function told(advertised) {
  const places = new Map();
  for (const transport of ['udp', 'tcp']) {
    const own = advertised.filter((candidate) => candidate.transport === transport).map(({ address }) => {
      const colon = address.lastIndexOf(':');
      return { host: address.slice(0, colon), port: address.slice(colon + 1) };
    });
    if (own.length === 0) continue;
    const hosts = [...new Set(own.map(({ host }) => host))].join(', ');
    const ports = [...new Set(own.map(({ port }) => port))].join(', ');
    places.set(hosts, [...places.get(hosts) ?? [], `${transport.toUpperCase()} ${ports}`]);
  }
  return [...places].map(([hosts, ports]) => `${ports.join(' and ')} at ${hosts}`).join('; ');
}

function facts(list, pairs) {
  if (list.children.length === 0) {
    for (const [name] of pairs) {
      const group = document.createElement('div');
      const [term, value] = [document.createElement('dt'), document.createElement('dd')];
      term.textContent = name;
      group.append(term, value);
      list.append(group);
    }
  }
  pairs.forEach(([, value], index) => say(list.children[index].lastElementChild, value));
}

function showQuotas({ keys }) {
  const rows = keys.flatMap(({ key, quotas }) => quotas.map((quota, index) => ({ ...quota, key, first: index === 0 })));
  fill($('quotas'), QUOTAS, rows, ({ key, quota }) => `${quota} ${key}`);
  return rows;
}

function showRooms({ total, rooms }) {
  fill($('rooms'), ROOMS, rooms, ({ sid }) => sid);
  for (const row of $('rooms').tBodies[0].rows) row.classList.toggle('chosen', row.dataset.key === chosen);
  const searched = $('search').value !== '';
  const none = searched ? 'No room has this in its name or key.' : 'There are no rooms.';
  say($('rooms-hint'), total === 0 ? none : total > rooms.length ? `The ${rooms.length} largest of ${total}.` : '');
}

function showRoom(found) {
  $('room').hidden = found === null;
  if (found === null) return;
  const at = Date.parse(found.at);
  const bytes = new Map(found.participants.map(({ sid, received }) => [sid, received.reduce((sum, slot) => sum + slot.bytes, 0)]));
  // The same look again says nothing new of what flows.
  const span = (at - before.at) / 1000;
  const down = (sid) => (before.bytes.has(sid) && span > 0 ? ((bytes.get(sid) - before.bytes.get(sid)) * 8) / span : null);
  const up = (published) => published.flatMap(({ encodings }) => encodings).reduce((sum, { active, bitrate_bps: bps }) => sum + (active ? bps ?? 0 : 0), 0);
  const rows = found.participants.map((one) => ({ ...one, up: up(one.published), down: down(one.sid) }));
  before = { at, bytes };
  say($('room-title'), `Room ${found.name}`);
  fill($('participants'), PARTICIPANTS, rows, ({ sid }) => sid);
  say($('room-hint'), rows.length === 0 ? 'Nobody is here.' : `API key ${found.key}, shard ${found.shard}, ${plural(rows.length, 'participant', 'participants')}`);
}

function showHints(found, quotas) {
  const hints = [];
  const { ledger, shards, state } = found;
  if (!ledger.writable) hints.push(['bad', `The ledger cannot be written; ${plural(ledger.rows_waiting, 'row waits', 'rows wait')} in memory. See “The ledger cannot be written” in incidents.md.`]);
  else if (ledger.checkpoint_age_ms > 3000 * ledger.checkpoint_s) hints.push(['warn', `The last checkpoint is ${duration(ledger.checkpoint_age_ms)} old.`]);
  const saturated = shards.flatMap((shard, index) => (shard.saturated ? [index] : []));
  if (saturated.length > 0) hints.push(['bad', `Saturated shards: ${saturated.join(', ')}. Calls on them suffer.`]);
  if (state === 'draining') hints.push(['warn', `Draining: ${plural(found.sessions, 'session is', 'sessions are')} left; then the server stops.`]);
  for (const { key, quota, used, limit } of quotas) {
    if (limit !== null && used / limit >= QUOTA[0]) hints.push([tone(used / limit, QUOTA), `${key}: ${percent(used / limit)} of ${QUOTA_NAMES[quota] ?? quota}.`]);
  }
  if (hints.length === 0) hints.push(['good', 'Nothing needs attention.']);
  const list = $('hints');
  while (list.children.length > hints.length) list.lastElementChild.remove();
  while (list.children.length < hints.length) list.append(document.createElement('li'));
  hints.forEach(([kind, text], index) => {
    const item = list.children[index];
    if (item.dataset.tone !== kind) item.dataset.tone = kind;
    say(item, text);
  });
}

/** Says that what is shown is old, or that it is not any more. */
function showGone(problem) {
  document.body.classList.toggle('stale', problem !== null);
  $('gone').hidden = problem === null;
  if (problem !== null) say($('gone'), problem);
}

// ---- asking ----------------------------------------------------------------------------------------------------------

/** What the server refuses, in its own words. */
class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail ?? `status ${status}`);
    this.status = status;
  }
}

async function ask(path, options) {
  const response = await fetch(path, { ...options, signal: AbortSignal.timeout(PATIENCE_MS) });
  if (!response.ok) throw new Refused(response.status, await response.json().catch(() => ({})));
  return response.json();
}

async function askRoom() {
  if (chosen === '') return null;
  try {
    return await ask(`/v1/node/rooms/${encodeURIComponent(chosen)}`);
  } catch (error) {
    // It has ended.
    if (error instanceof Refused && error.status === 404) return null;
    throw error;
  }
}

async function look() {
  const sought = encodeURIComponent($('search').value.trim().toLowerCase());
  try {
    const asked = chosen;
    const [found, quotas, rooms, room] = await Promise.all([ask('/v1/node'), ask('/v1/node/quotas'), ask(`/v1/node/rooms?search=${sought}`), askRoom()]);
    node = found;
    answeredAt = new Date();
    showNode(found);
    showHints(found, showQuotas(quotas));
    showRooms(rooms);
    if (asked === chosen) {
      if (room === null && chosen !== '') choose('');
      showRoom(room);
    }
    say($('updated'), `as of ${answeredAt.toLocaleTimeString()}`);
    showGone(null);
  } catch (error) {
    if (error instanceof Refused) showGone(`The server refuses: ${error.message}.`);
    else if (answeredAt === null) showGone('The server does not answer.');
    else showGone(`The server has not answered since ${answeredAt.toLocaleTimeString()}${node.state === 'draining' ? '; it was draining' : ''}. What is below is from then.`);
  }
}

let timer = null;
let looking = false;

/** Looks now, and then in each period, while anybody can see it. */
async function turn() {
  clearTimeout(timer);
  if (!looking && !document.hidden) {
    looking = true;
    await look();
    looking = false;
  }
  clearTimeout(timer);
  timer = setTimeout(turn, PERIOD_MS);
}

// ---- doing -----------------------------------------------------------------------------------------------------------

async function choose(sid) {
  const opened = sid !== '' && sid !== chosen;
  chosen = sid;
  before = { at: 0, bytes: new Map() };
  history.replaceState(null, '', sid === '' ? location.pathname : `#${sid}`);
  if (sid === '') {
    $('room').hidden = true;
    return;
  }
  const room = await askRoom().catch(() => null);
  if (chosen !== sid) return;
  showRoom(room);
  for (const row of $('rooms').tBodies[0]?.rows ?? []) row.classList.toggle('chosen', row.dataset.key === chosen);
  if (opened && room !== null) {
    $('room-title').focus({ preventScroll: true });
    $('room').scrollIntoView({ block: 'nearest', behavior: 'smooth' });
  }
}

function close() {
  const row = [...$('rooms').tBodies[0]?.rows ?? []].find(({ dataset }) => dataset.key === chosen);
  row?.classList.remove('chosen');
  choose('');
  row?.querySelector('button')?.focus();
}

async function drain() {
  const minutes = $('deadline').value;
  const problem = $('ask-problem');
  problem.hidden = true;
  if (!$('deadline').checkValidity()) {
    problem.hidden = false;
    return say(problem, 'Whole minutes, a day at most; empty is never.');
  }
  const body = JSON.stringify(minutes === '' ? {} : { deadline_s: Number(minutes) * 60 });
  try {
    await ask('/v1/node/drain', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body });
    $('ask').close();
    turn();
  } catch (error) {
    problem.hidden = false;
    say(problem, error instanceof Refused ? error.message : 'The server does not answer.');
  }
}

$('drain').addEventListener('click', () => {
  $('ask-problem').hidden = true;
  $('ask').showModal();
});
$('cancel').addEventListener('click', () => $('ask').close());
$('confirm').addEventListener('click', drain);
$('close').addEventListener('click', close);
$('search').addEventListener('input', turn);
document.addEventListener('visibilitychange', turn);
document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && !$('ask').open && chosen !== '' && event.target !== $('search')) close();
});
turn();
