/** The pictures: one tile for each participant, one more for each shared screen. */

import { icon } from './icons.js';

/** A tile's picture is asked for in steps, so that resizing a window does not ask anew at each pixel. */
const HEIGHT_STEPS = [90, 180, 360, 540, 720, 1080, 1440, 2160];
const WISH_DELAY_MS = 150;
const SPEAKING_LEVEL = 0.01;
const RATIO = 16 / 9;
const GAP = 12;

export class Tiles {
  #call = null;
  #tiles = document.querySelector('#tiles');
  #screens = document.querySelector('#screens');
  #stage = document.querySelector('#stage');
  #shown = new Map();
  #lastSpoke = new Map();
  #wish = '';
  #wishTimer = 0;
  #resizing = new ResizeObserver(() => this.#arrange());
  #density = null;

  /** Shows a call from now on. */
  attach(call) {
    this.#call = call;
    this.#wish = '';
    this.#lastSpoke.clear();
    for (const type of ['welcome', 'moved', 'participant', 'track', 'slots']) call.on(type, () => this.draw());
    // What changed while there was no connection is not told yet.
    call.on('state', () => this.#wishSoon());
    call.on('speakers', ({ speakers }) => this.#mark(speakers));
    this.#resizing.observe(this.#stage);
    this.#watchDensity();
    this.draw();
  }

  /** Removes everything. */
  clear() {
    this.#resizing.disconnect();
    this.#density?.abort();
    clearTimeout(this.#wishTimer);
    for (const tile of this.#shown.values()) tile.remove();
    this.#shown.clear();
  }

  /** Brings the tiles in line with the call. Cheap when nothing changed. */
  draw() {
    const wanted = this.#describe();
    for (const [key, tile] of this.#shown) {
      if (wanted.has(key)) continue;
      tile.remove();
      this.#shown.delete(key);
    }
    for (const [key, about] of wanted) {
      if (!this.#shown.has(key)) {
        const tile = new Tile(about);
        this.#shown.set(key, tile);
        (about.isScreen ? this.#screens : this.#tiles).append(tile.element);
      }
      this.#shown.get(key).update(about);
    }
    this.#arrange();
  }

  /** What there is to see: key → what the tile shows. */
  #describe() {
    const wanted = new Map();
    const { me, participants, publications } = this.#call;
    if (me === null) return wanted;
    for (const participant of [...participants.values(), me]) {
      const isMe = participant === me;
      const find = (source) => participant.tracks.find((track) => track.source === source);
      const microphone = isMe ? publications.get('microphone') : find('microphone');
      const about = { participant, isMe, isSilent: microphone?.muted ?? true };
      const camera = isMe ? this.#ownPicture('camera') : this.#picture(find('camera'));
      wanted.set(participant.sid, { ...about, ...camera, isScreen: false });
      const screen = isMe ? this.#ownPicture('screen_share') : this.#picture(find('screen_share'));
      if (screen.hasPicture) wanted.set(`${participant.sid} screen`, { ...about, ...screen, isScreen: true });
    }
    return wanted;
  }

  #picture(track) {
    const slot = track && [...this.#call.slots.values()].find((candidate) => candidate.track === track.sid);
    const isShown = Boolean(slot) && !track.muted && slot.state === 'live';
    const wanted = track && !track.muted;
    return { track, media: isShown ? slot.stream : null, hasPicture: Boolean(wanted) };
  }

  #ownPicture(source) {
    const publication = this.#call.publications.get(source);
    const isOn = Boolean(publication?.track) && !publication.muted;
    return { media: isOn ? publication.track : null, hasPicture: isOn };
  }

  #mark(speakers) {
    const levels = new Map(speakers.map(({ participant, level }) => [participant, level]));
    for (const [key, tile] of this.#shown) tile.speaking = (levels.get(key) ?? 0) > SPEAKING_LEVEL;
    for (const sid of levels.keys()) this.#lastSpoke.set(sid, performance.now());
    this.#wishSoon();
  }

  /** Chooses the number of columns that makes the tiles largest. */
  #arrange() {
    const screens = this.#screens.childElementCount;
    this.#stage.dataset.screens = screens > 0 ? 'shown' : 'none';
    const count = this.#tiles.childElementCount;
    const { clientWidth: width, clientHeight: height } = this.#tiles;
    let best = 0;
    for (let columns = 1; columns <= count; columns += 1) {
      const rows = Math.ceil(count / columns);
      const fromWidth = (width - GAP * (columns - 1)) / columns;
      const fromHeight = ((height - GAP * (rows - 1)) / rows) * RATIO;
      best = Math.max(best, Math.min(fromWidth, fromHeight));
    }
    // Through the object model, for the content security policy forbids style attributes.
    this.#tiles.style.setProperty('--tile-width', `${Math.floor(best)}px`);
    this.#wishSoon();
  }

  /** The page may be dragged to a screen with other pixels, without any change of its size. */
  #watchDensity() {
    this.#density?.abort();
    this.#density = new AbortController();
    const { signal } = this.#density;
    matchMedia(`(resolution: ${devicePixelRatio}dppx)`).addEventListener('change', () => {
      this.#watchDensity();
      this.#wishSoon();
    }, { signal });
  }

  #wishSoon() {
    clearTimeout(this.#wishTimer);
    this.#wishTimer = setTimeout(() => this.#tellWish(), WISH_DELAY_MS);
  }

  /** Asks for what is on the page, no larger than it is shown: screens first, then who spoke last. */
  #tellWish() {
    const room = [...this.#call.slots.values()].filter(({ kind }) => kind === 'video').length;
    const rank = ({ about }) => [about.isScreen ? 0 : 1, -(this.#lastSpoke.get(about.participant.sid) ?? 0)];
    const video = [...this.#shown.values()]
      .filter(({ about }) => !about.isMe && about.hasPicture)
      .sort((one, other) => compare(rank(one), rank(other)))
      .slice(0, room)
      .map((tile) => ({ track: tile.about.track.sid, height: tile.height, priority: tile.about.isScreen ? 2 : 1 }));
    const wish = JSON.stringify(video);
    if (this.#call.state !== 'connected' || wish === this.#wish) return;
    this.#wish = wish;
    this.#call.want({ video });
  }
}

/** One picture with its name. */
class Tile {
  constructor(about) {
    this.about = about;
    this.element = document.createElement('article');
    this.element.className = 'tile';
    this.element.dataset.testid = about.isScreen ? 'screen-tile' : 'tile';
    this.avatar = document.createElement('div');
    this.avatar.className = 'avatar';
    this.avatar.ariaHidden = 'true';
    this.video = document.createElement('video');
    Object.assign(this.video, { autoplay: true, playsInline: true, muted: true });
    // A slot that changes hands keeps its last frame until the next: show the picture only when it is the right one.
    this.video.addEventListener('loadeddata', () => { this.element.dataset.video = 'on'; });
    const label = document.createElement('footer');
    this.silent = icon('microphone-off');
    this.name = document.createElement('span');
    this.name.dataset.testid = 'tile-name';
    label.append(this.silent, this.name);
    this.element.append(this.avatar, this.video, label);
    this.#show(null);
  }

  update(about) {
    this.about = about;
    const { participant, isMe, isScreen, isSilent, media } = about;
    const name = participant.name || participant.identity;
    const label = isMe ? `${name} (you)` : name;
    this.name.textContent = isScreen ? `${label}: screen` : label;
    this.avatar.textContent = initials(name);
    this.element.style.setProperty('--hue', hueOf(participant.identity));
    this.element.dataset.identity = participant.identity;
    this.element.dataset.muted = String(isSilent && !isScreen);
    this.element.dataset.me = String(isMe);
    this.element.setAttribute('aria-label', `${this.name.textContent}${isSilent && !isScreen ? ', muted' : ''}`);
    if (media !== this.media) this.#show(media);
  }

  set speaking(isSpeaking) {
    this.element.dataset.speaking = String(isSpeaking);
  }

  /** How many picture lines are worth receiving. */
  get height() {
    const pixels = this.element.clientHeight * devicePixelRatio;
    return HEIGHT_STEPS.find((step) => step >= pixels) ?? HEIGHT_STEPS.at(-1);
  }

  remove() {
    this.#show(null);
    this.element.remove();
  }

  #show(media) {
    this.media = media;
    this.element.dataset.video = 'off';
    this.video.srcObject = media instanceof MediaStreamTrack ? new MediaStream([media]) : media;
  }
}

function initials(name) {
  const words = name.trim().split(/\s+/);
  const letters = words.length > 1 ? [words[0], words.at(-1)] : [words[0]];
  return letters.map((word) => [...word][0] ?? '').join('').toUpperCase();
}

/** Everyone keeps their colour. */
function hueOf(identity) {
  return [...identity].reduce((hash, letter) => (hash * 31 + letter.codePointAt(0)) % 360, 7);
}

function compare(one, other) {
  return one[0] - other[0] || one[1] - other[1];
}
