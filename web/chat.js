/** The chat panel. */

const TOPIC = 'chat';

export class Chat {
  #call = null;
  #list = document.querySelector('#chat-messages');
  #panel = document.querySelector('#chat-panel');
  #unread = document.querySelector('#unread');
  #count = 0;

  constructor() {
    const text = document.querySelector('#chat-text');
    document.querySelector('#chat-form').addEventListener('submit', (event) => {
      event.preventDefault();
      const message = text.value.trim();
      if (message === '' || !this.#send(message)) return;
      text.value = '';
    });
  }

  /** Starts an empty conversation. */
  attach(call) {
    this.#call = call;
    this.#list.replaceChildren();
    this.seen();
    call.on('message', ({ from, topic, data }) => {
      if (topic !== TOPIC || typeof data?.text !== 'string') return;
      this.#show(this.#nameOf(from), data.text, 'theirs');
      if (this.#panel.hidden) this.#mark(this.#count + 1);
    });
  }

  /** The panel was opened: nothing is unread. */
  seen() {
    this.#mark(0);
  }

  #send(text) {
    try {
      this.#call.sendMessage(TOPIC, { text });
    } catch {
      this.#show('', 'Not sent: there is no connection at the moment.', 'note');
      return false;
    }
    this.#show('You', text, 'mine');
    return true;
  }

  #nameOf(identity) {
    if (identity === null) return 'Server';
    const someone = [...this.#call.participants.values()].find((participant) => participant.identity === identity);
    return someone?.name || identity;
  }

  #show(name, text, kind) {
    const line = document.createElement('li');
    line.className = kind;
    line.dataset.testid = 'chat-message';
    const who = document.createElement('b');
    who.textContent = name;
    const what = document.createElement('p');
    what.textContent = text;
    line.append(who, what);
    this.#list.append(line);
    line.scrollIntoView({ block: 'end' });
  }

  #mark(count) {
    this.#count = count;
    this.#unread.textContent = String(count);
    this.#unread.hidden = count === 0;
  }
}
