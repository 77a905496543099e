/** The page before a call: name, room, and a look at oneself. */

import { openDevices, watchLevel } from './devices.js';
import { setDeviceButton } from './icons.js';
import { explain } from './words.js';

export class Lobby {
  #element = document.querySelector('#lobby');
  #form = document.querySelector('#join-form');
  #problem = document.querySelector('#lobby-error');
  #preview = document.querySelector('#preview');
  #video = document.querySelector('#preview-video');
  #meter = document.querySelector('#preview-level');
  #start = document.querySelector('#preview-start');
  #wanted = { microphone: true, camera: true };
  #tracks = { microphone: null, camera: null };
  #stopLevel = null;

  /**
   * @param {(room: string, name: string, devices: object) => Promise<void>} join
   * @param {(text: string) => void} notify
   */
  constructor(join, notify) {
    this.#prefill();
    this.#form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.#submit(join);
    });
    this.#start.addEventListener('click', () => this.#try(notify));
    for (const device of Object.keys(this.#wanted)) this.#wireToggle(device);
  }

  /** Shows the lobby again, with a word on why. */
  show(problem = '') {
    this.#element.hidden = false;
    this.#problem.textContent = problem;
    this.#problem.hidden = problem === '';
    this.#draw();
  }

  #prefill() {
    const query = new URLSearchParams(location.search);
    this.#form.room.value = query.get('room') ?? '';
    this.#form.elements.namedItem('name').value = query.get('name') ?? '';
  }

  #wireToggle(device) {
    const button = document.querySelector(`#lobby-${device}`);
    button.addEventListener('click', () => {
      this.#wanted[device] = !this.#wanted[device];
      setDeviceButton(button, device, this.#wanted[device]);
      if (!this.#wanted[device]) this.#close(device);
      this.#draw();
    });
  }

  async #submit(join) {
    const button = this.#form.querySelector('#join');
    const missing = await this.#openMissing();
    button.disabled = true;
    this.#problem.hidden = true;
    try {
      const { microphone, camera } = this.#tracks;
      await join(this.#form.room.value.trim(), this.#form.elements.namedItem('name').value.trim(), { microphone, camera, problems: missing });
      // The call owns the devices now.
      this.#tracks = { microphone: null, camera: null };
      this.#draw();
      this.#element.hidden = true;
    } catch (error) {
      this.show(explain(error));
    } finally {
      button.disabled = false;
    }
  }

  async #try(notify) {
    const problems = await this.#openMissing();
    for (const problem of problems) notify(problem);
    this.#draw();
  }

  /** Opens what is wanted and not open yet; returns what could not be had, in words. */
  async #openMissing() {
    const { microphone, camera } = this.#tracks;
    const found = await openDevices({
      microphone: this.#wanted.microphone && !microphone,
      camera: this.#wanted.camera && !camera,
    });
    this.#tracks = { microphone: found.microphone ?? microphone, camera: found.camera ?? camera };
    return found.problems;
  }

  #close(device) {
    this.#tracks[device]?.stop();
    this.#tracks[device] = null;
  }

  #draw() {
    const { microphone, camera } = this.#tracks;
    this.#preview.dataset.video = camera ? 'on' : 'off';
    this.#video.srcObject = camera ? new MediaStream([camera]) : null;
    this.#start.hidden = Boolean(microphone || camera) || !(this.#wanted.microphone || this.#wanted.camera);
    this.#stopLevel?.();
    this.#stopLevel = microphone ? watchLevel(microphone, (level) => { this.#meter.value = level; }) : null;
    this.#meter.hidden = !microphone;
  }
}
