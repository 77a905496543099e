/** Stube's demo page: from the lobby into a call and back. */

import { Chat } from './chat.js';
import { openDevices, openScreen } from './devices.js';
import { setDeviceButton } from './icons.js';
import { Lobby } from './lobby.js';
import { Statistics } from './stats.js';
import { connect, StubeError } from './stube.js';
import { Tiles } from './tiles.js';
import { explainEnd } from './words.js';

const NOTICE_MS = 6_000;
/** A ticket this close to its end is not used again. */
const TOKEN_MARGIN_MS = 10_000;

const $ = (id) => document.querySelector(`#${id}`);
const callView = $('call');
const tiles = new Tiles();
const chat = new Chat();
const statistics = new Statistics();
const lobby = new Lobby(startCall, notify);

/** @type {import('./stube.js').Call|null} */
let call = null;

// ---- joining and leaving -------------------------------------------------------------------------------------

async function startCall(room, name, { microphone, camera, problems }) {
  const first = await fetchTicket(room, name);
  let ticket = first;
  const publish = [];
  if (microphone) publish.push({ source: 'microphone', track: microphone });
  if (camera) publish.push({ source: 'camera', track: camera, simulcast: true });
  call = await connect({
    // By path, for the page may only talk to where it came from, whatever name that has here.
    url: new URL(first.session_url).pathname,
    token: async () => {
      if (expiryOf(ticket.token) < Date.now() + TOKEN_MARGIN_MS) ticket = await fetchTicket(room, name);
      return ticket.token;
    },
    publish,
  });
  call.on('state', onState);
  call.on('error', ({ message }) => notify(message));
  call.on('message', ({ from, topic, data }) => {
    if (from === null && topic === 'stube.room_ending') notify(`This call ends in ${data.ends_in_s} seconds.`);
  });
  for (const type of ['welcome', 'moved', 'participant', 'track']) call.on(type, drawCall);
  // The first welcome came before anyone listened; later ones mean a new connection with new slots.
  call.on('welcome', playSound);
  playSound();
  tiles.attach(call);
  chat.attach(call);
  statistics.attach(call);
  if (camera) watchEnd('camera', camera);
  if (microphone) watchEnd('microphone', microphone);
  history.replaceState(null, '', `?room=${encodeURIComponent(room)}`);
  for (const problem of problems) notify(problem);
  callView.hidden = false;
  drawCall();
  $('toggle-microphone').focus();
}

async function fetchTicket(room, name) {
  const response = await fetch('/demo/token', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ room, name }),
  });
  if (response.ok) return response.json();
  const error = await StubeError.from(response);
  if (response.status !== 404) throw error;
  throw new StubeError('this server has no demo: its key is not the development key', {
    status: 404,
    code: 'no_demo',
  });
}

function expiryOf(token) {
  try {
    return JSON.parse(atob(token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/'))).exp * 1000;
  } catch {
    // Not for us to judge; the server says whether it takes it.
    return Infinity;
  }
}

function onState(state) {
  const badge = $('connection');
  badge.hidden = state === 'connected';
  badge.textContent = state === 'reconnecting' ? 'Reconnecting …' : '';
  if (state === 'closed') endCall();
  else drawCall();
}

function endCall() {
  const { closedBy, publications } = call;
  for (const { track } of publications.values()) track?.stop();
  for (const panel of ['chat', 'statistics']) openPanel(panel, false);
  tiles.clear();
  $('sound').replaceChildren();
  callView.hidden = true;
  lobby.show(closedBy === null ? '' : explainEnd(closedBy));
}

function playSound() {
  const players = [...call.slots.values()].filter(({ kind }) => kind === 'audio').map(({ stream }) => {
    const player = new Audio();
    player.srcObject = stream;
    player.autoplay = true;
    return player;
  });
  $('sound').replaceChildren(...players);
  Promise.all(players.map((player) => player.play())).catch((error) => {
    if (error.name === 'NotAllowedError') offerSound(players);
  });
}

/** Some browsers play sound only after a click. */
function offerSound(players) {
  const button = document.createElement('button');
  button.className = 'primary';
  button.textContent = 'Turn on sound';
  button.addEventListener('click', () => {
    for (const player of players) player.play();
    button.remove();
  });
  $('notices').append(button);
}

// ---- our own devices -----------------------------------------------------------------------------------------

async function toggleMicrophone() {
  const publication = call.publications.get('microphone');
  if (publication?.track) call.setMuted('microphone', !publication.muted);
  else await publishDevice('microphone', {});
}

/** A camera that is off is really off, light and all; its line stays for the next time. */
async function toggleCamera() {
  const publication = call.publications.get('camera');
  if (!publication?.track) return publishDevice('camera', { simulcast: true });
  const { track } = publication;
  call.setMuted('camera', true);
  await call.replaceTrack('camera', null);
  track.stop();
}

async function publishDevice(device, options) {
  const found = await openDevices({ microphone: device === 'microphone', camera: device === 'camera' });
  for (const problem of found.problems) notify(problem);
  if (!found[device]) return;
  watchEnd(device, found[device]);
  await call.publish(device, found[device], options);
}

async function toggleScreen() {
  if (call.publications.has('screen_share')) return stopScreen();
  const screen = await openScreen();
  if (screen === null) return;
  // The browser has a button of its own to end sharing.
  screen.video.addEventListener('ended', stopScreen);
  await call.publish('screen_share', screen.video, { encodings: [{ maxBitrate: 2_500_000 }] });
  if (screen.audio) await call.publish('screen_share_audio', screen.audio);
}

async function stopScreen() {
  for (const source of ['screen_share', 'screen_share_audio']) {
    call.publications.get(source)?.track?.stop();
    await call.unpublish(source);
  }
  drawCall();
}

/** Someone pulled the plug. */
function watchEnd(device, track) {
  track.addEventListener('ended', () => {
    if (call.publications.get(device)?.track !== track) return;
    call.setMuted(device, true);
    call.replaceTrack(device, null);
    notify(`The ${device} is gone.`);
    drawCall();
  });
}

// ---- the page ------------------------------------------------------------------------------------------------

function drawCall() {
  if (call.room === null) return;
  const count = call.participants.size + 1;
  $('room-name').textContent = call.room.name;
  document.title = `${call.room.name} – Stube`;
  $('headcount').textContent = count === 1 ? 'only you' : `${count} people`;
  for (const device of ['microphone', 'camera']) {
    const publication = call.publications.get(device);
    setDeviceButton($(`toggle-${device}`), device, Boolean(publication?.track) && !publication.muted);
  }
  $('toggle-screen').setAttribute('aria-pressed', String(call.publications.has('screen_share')));
  tiles.draw();
}

function openPanel(name, isOpen) {
  for (const panel of ['chat', 'statistics']) {
    const shown = panel === name && isOpen;
    $(`${panel}-panel`).hidden = !shown;
    $(`toggle-${panel}`).setAttribute('aria-expanded', String(shown));
  }
  callView.dataset.panel = isOpen ? name : '';
  statistics.watch(isOpen && name === 'statistics');
  if (isOpen && name === 'chat') {
    chat.seen();
    $('chat-text').focus();
  }
}

function notify(text) {
  const notice = document.createElement('p');
  notice.textContent = text;
  $('notices').append(notice);
  setTimeout(() => notice.remove(), NOTICE_MS);
}

/** Runs a button's work, one click at a time, and says so where it fails. */
function onClick(id, work) {
  const button = $(id);
  button.addEventListener('click', async () => {
    button.disabled = true;
    try {
      await work();
    } catch (error) {
      notify(`That did not work: ${error.message}`);
    } finally {
      button.disabled = false;
      if (call.state !== 'closed') drawCall();
    }
  });
}

function wirePanel(name) {
  $(`toggle-${name}`).addEventListener('click', () => openPanel(name, $(`${name}-panel`).hidden));
  document.querySelector(`[data-close="${name}"]`).addEventListener('click', () => {
    openPanel(name, false);
    $(`toggle-${name}`).focus();
  });
}

const SHORTCUTS = { m: 'toggle-microphone', v: 'toggle-camera' };

function onKey(event) {
  if (callView.hidden || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === 'Escape') openPanel('', false);
  else if (event.target.tagName !== 'INPUT' && SHORTCUTS[event.key]) $(SHORTCUTS[event.key]).click();
}

onClick('toggle-microphone', toggleMicrophone);
onClick('toggle-camera', toggleCamera);
onClick('toggle-screen', toggleScreen);
onClick('leave-call', () => call.leave());
onClick('copy-link', async () => {
  await navigator.clipboard.writeText(location.href);
  notify('The link to this room is in your clipboard.');
});
wirePanel('chat');
wirePanel('statistics');
addEventListener('keydown', onKey);
if (!navigator.mediaDevices?.getDisplayMedia) $('toggle-screen').hidden = true;
