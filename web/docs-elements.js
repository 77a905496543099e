/** Making elements of text that is not trusted to be HTML. */

/**
 * A new element; strings among its children are text.
 * @param {string} name
 * @param {Record<string, string|number>} attributes
 * @param {(Node|string)[]} children
 */
export function element(name, attributes, children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== ''));
  return made;
}

/** Text in which `backticks` mean code. */
export function prose(text = '') {
  return text.split('`').map((part, index) => (index % 2 === 1 ? element('code', {}, [part]) : part));
}

/** A table that scrolls by itself where it is too wide. Cells are a node, a text or a list of these. */
export function table(heads, rows) {
  const cells = (row) => row.map((cell) => element('td', {}, Array.isArray(cell) ? cell : [cell]));
  return element('div', { class: 'wide', tabindex: 0, role: 'region', 'aria-label': heads.join(', ') }, [
    element('table', {}, [
      element('thead', {}, [element('tr', {}, heads.map((head) => element('th', { scope: 'col' }, [head])))]),
      element('tbody', {}, rows.map((row) => element('tr', {}, cells(row)))),
    ]),
  ]);
}
