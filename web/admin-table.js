// A table that changes in place: what stays the same is not touched, so nothing flickers and the focus stays where it is.

/**
 * @typedef {object} Cell
 * @property {string} text
 * @property {'good' | 'warn' | 'bad' | 'soft'} [tone]
 * @property {number} [ratio] draws a bar behind the text, 0 to 1
 * @property {() => void} [action] makes it a button
 * @property {string} [title] more, for who points at it
 *
 * @typedef {object} Column
 * @property {string} label
 * @property {boolean} [figure] to the right
 * @property {boolean} [long] may take several lines
 * @property {(row: any) => Cell | string} cell
 */

/**
 * Shows rows, in their order.
 * @param {HTMLTableElement} table
 * @param {Column[]} columns always the same for one table
 * @param {any[]} rows
 * @param {(row: any) => string} keyOf tells rows apart over time
 */
export function fill(table, columns, rows, keyOf) {
  const body = table.tBodies[0] ?? head(table, columns);
  const known = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  let place = body.firstElementChild;
  for (const row of rows) {
    const key = keyOf(row);
    const line = known.get(key) ?? blank(key, columns);
    known.delete(key);
    if (line === place) place = place.nextElementSibling;
    else body.insertBefore(line, place);
    columns.forEach((column, index) => write(line.cells[index], column.cell(row)));
  }
  for (const line of known.values()) line.remove();
}

/** Writes a text where it is not there yet. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function head(table, columns) {
  const row = table.createTHead().insertRow();
  for (const { label, figure } of columns) {
    const cell = document.createElement('th');
    cell.scope = 'col';
    cell.textContent = label;
    cell.classList.toggle('figure', Boolean(figure));
    row.append(cell);
  }
  return table.createTBody();
}

function blank(key, columns) {
  const line = document.createElement('tr');
  line.dataset.key = key;
  for (const { label, figure, long } of columns) {
    const cell = line.insertCell();
    cell.dataset.label = label;
    cell.classList.toggle('figure', Boolean(figure));
    cell.classList.toggle('long', Boolean(long));
  }
  return line;
}

function write(cell, content) {
  const { text, tone = '', ratio, action, title = '' } = typeof content === 'string' ? { text: content } : content;
  if (cell.dataset.tone !== tone) cell.dataset.tone = tone;
  if (cell.title !== title) cell.title = title;
  if (ratio !== undefined) {
    const width = `${Math.round(Math.min(Math.max(ratio, 0), 1) * 100)}%`;
    if (cell.style.getPropertyValue('--bar') !== width) cell.style.setProperty('--bar', width);
    cell.classList.add('bar');
  }
  if (!action) return say(cell, text);
  let button = cell.querySelector('button');
  if (!button) {
    button = document.createElement('button');
    button.type = 'button';
    button.className = 'link';
    cell.replaceChildren(button);
  }
  button.onclick = action;
  say(button, text);
}
