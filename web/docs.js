/** The page at /docs: reads /v1/openapi.json and writes it down for people. All text goes in as text. */

import { element, prose, table } from './docs-elements.js';
import { fields, resolve, typeOf } from './docs-schema.js';

const METHODS = ['get', 'head', 'post', 'put', 'patch', 'delete'];

const at = (id) => document.getElementById(id);

/** An example as it would be sent. */
function written(example) {
  return typeof example === 'string' ? example.replaceAll('\r\n', '\n').trimEnd() : JSON.stringify(example, null, 2);
}

/** Text inside a shell's single quotes. */
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** The operation as a command line. */
function curl({ method, path, operation }, parameters) {
  const filled = path.replace(/\{(\w+)\}/g, (_, name) => (
    encodeURIComponent(parameters.find((one) => one.name === name)?.example ?? name)
  ));
  const parts = [`curl ${location.origin}${filled}`];
  if (method === 'head') parts[0] = parts[0].replace('curl', 'curl -I');
  else if (method !== 'get') parts[0] = parts[0].replace('curl', `curl -X ${method.toUpperCase()}`);
  const [first] = operation.security;
  if (first?.key) parts.push('-u "$KEY:$SECRET"');
  else if (first?.token) parts.push('-H "Authorization: Bearer $TOKEN"');
  for (const one of parameters) {
    if (one.in === 'header') parts.push(`-H ${quoted(`${one.name}: ${one.example}`)}`);
  }
  const [type, content] = Object.entries(operation.requestBody?.content ?? {})[0] ?? [];
  if (type) parts.push(`-H ${quoted(`Content-Type: ${type}`)}`);
  if (type === 'application/json') parts.push(`-d ${quoted(JSON.stringify(content.example))}`);
  else if (type) parts.push('--data-binary @offer.sdp');
  if (operation.responses['200']?.content?.['text/event-stream']) parts[0] = parts[0].replace('curl', 'curl -N');
  return parts.join(' \\\n  ');
}

/** A body of one media type: what it is made of, and an example. */
function body(api, type, content) {
  const rows = fields(api, content.schema).map(({ name, required, type: kind, about }) => [
    element('span', {}, [element('code', {}, [name]), required ? element('span', { class: 'must', title: 'required' }, ['*']) : '']),
    kind,
    prose(about),
  ]);
  const parts = [element('p', { class: 'media' }, [element('code', {}, [type])])];
  if (rows.length > 0) parts.push(table(['Field', 'Type', 'Meaning'], rows));
  if (content.example) parts.push(element('pre', { tabindex: 0, 'aria-label': 'Example' }, [written(content.example)]));
  return element('div', { class: 'body' }, parts);
}

/** A success. */
function answer(api, status, response) {
  const headers = Object.entries(response.headers ?? {}).map(([name, header]) => [
    element('code', {}, [name]), prose(resolve(api, header).description),
  ]);
  return element('div', { class: 'answer' }, [
    element('p', {}, [element('strong', { class: 'status' }, [status]), ' ', ...prose(response.description)]),
    headers.length > 0 ? table(['Header', 'Meaning'], headers) : '',
    ...Object.entries(response.content ?? {}).map(([type, content]) => body(api, type, content)),
  ]);
}

/** The codes of the failures, with their statuses. */
function failures(api, responses) {
  return Object.entries(responses).filter(([status]) => status >= '400').flatMap(([status, response]) => (
    Object.keys(response.content['application/problem+json'].examples).map((code) => [
      status,
      element('a', { href: `#code-${code}` }, [element('code', {}, [code])]),
      prose(api.components.examples[code].summary),
    ])
  ));
}

function section(title, ...parts) {
  return [element('h4', {}, [title]), ...parts];
}

/** One operation, folded. */
function article(api, entry) {
  const { method, path, operation } = entry;
  const parameters = (operation.parameters ?? []).map((one) => resolve(api, one));
  const rows = parameters.map((one) => [
    element('span', {}, [element('code', {}, [one.name]), one.required ? element('span', { class: 'must', title: 'required' }, ['*']) : '']),
    one.in,
    typeOf(api, one.schema),
    prose(one.description),
  ]);
  const content = [
    element('p', {}, prose(operation.description)),
    element('pre', { class: 'command', tabindex: 0, 'aria-label': 'Command line' }, [curl(entry, parameters)]),
  ];
  if (rows.length > 0) content.push(...section('Parameters', table(['Name', 'In', 'Type', 'Meaning'], rows)));
  const bodies = Object.entries(operation.requestBody?.content ?? {});
  if (bodies.length > 0) content.push(...section('Body', ...bodies.map(([type, one]) => body(api, type, one))));
  const good = Object.entries(operation.responses).filter(([status]) => status < '400');
  content.push(...section('Answers', ...good.map(([status, response]) => answer(api, status, response))));
  content.push(...section('Errors', table(['Status', 'Code', 'Meaning'], failures(api, operation.responses))));
  return element('details', { id: operation.operationId, class: 'operation', 'data-testid': 'operation' }, [
    element('summary', {}, [
      element('span', { class: `method ${method}` }, [method.toUpperCase()]),
      element('h3', {}, [element('code', {}, [path]), element('span', { class: 'summary' }, [operation.summary])]),
    ]),
    element('div', { class: 'content' }, content),
  ]);
}

/** All operations of a tag, in the document's order. */
function operationsOf(api, tag) {
  const all = Object.entries(api.paths).flatMap(([path, item]) => (
    METHODS.filter((method) => item[method]).map((method) => ({ method, path, operation: item[method] }))
  ));
  return all.filter(({ operation }) => operation.tags.includes(tag));
}

/** What the server sends by itself. */
function events(api) {
  const hooks = Object.entries(api.webhooks);
  const [[, { post: any }]] = hooks;
  at('events').append(
    element('h2', {}, ['Events']),
    element('p', {}, prose(any.description)),
    ...hooks.map(([name, { post }]) => element('details', { id: `event-${name}`, class: 'operation', 'data-testid': 'event' }, [
      element('summary', {}, [
        element('span', { class: 'method post' }, ['EVENT']),
        element('h3', {}, [element('code', {}, [name]), element('span', { class: 'summary' }, [post.summary])]),
      ]),
      element('div', { class: 'content' }, Object.entries(post.requestBody.content).map(([type, one]) => body(api, type, one))),
    ])),
  );
}

function errors(api) {
  const rows = Object.entries(api.components.examples).map(([code, { summary, value }]) => [
    String(value.status), element('code', { id: `code-${code}` }, [code]), prose(summary),
  ]);
  rows.sort(([a], [b]) => a.localeCompare(b));
  const example = api.components.examples.invalid_request.value;
  at('errors').append(
    element('h2', {}, ['Errors']),
    element('p', {}, prose('Every error has this form. Decide by `code`; `instance` names the request in the server’s log.')),
    element('pre', { tabindex: 0, 'aria-label': 'Example of an error' }, [written(example)]),
    table(['Status', 'Code', 'Meaning'], rows),
  );
}

/** Shows only what holds every word that was typed. */
function filter(words) {
  let count = 0;
  for (const operation of document.querySelectorAll('#operations .operation')) {
    const text = operation.textContent.toLowerCase();
    operation.hidden = !words.every((word) => text.includes(word));
    document.querySelector(`[data-of="${operation.id}"]`).hidden = operation.hidden;
    if (!operation.hidden) count += 1;
  }
  for (const group of document.querySelectorAll('.group')) {
    group.hidden = !group.querySelector('.operation:not([hidden])');
    document.querySelector(`[data-of="${group.id}"]`).hidden = group.hidden;
  }
  at('found').textContent = words.length === 0 ? '' : `${count} of ${document.querySelectorAll('#operations .operation').length} operations`;
}

/** Unfolds what the address names. */
function follow() {
  const target = at(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  if (target instanceof HTMLDetailsElement) target.open = true;
  target.scrollIntoView();
}

function show(api) {
  at('version').textContent = `Version ${api.info.version}, OpenAPI ${api.openapi}.`;
  at('about').append(...api.info.description.split('\n\n').map((paragraph) => element('p', {}, prose(paragraph))));
  for (const [name, scheme] of Object.entries(api.components.securitySchemes)) {
    at('about').append(element('p', {}, [element('strong', {}, [name === 'key' ? 'Key and secret' : 'Token']), ': ', ...prose(scheme.description)]));
  }
  for (const { name, description } of api.tags) {
    const entries = operationsOf(api, name);
    const id = `tag-${name.toLowerCase()}`;
    at('operations').append(element('section', { id, class: 'group' }, [
      element('h2', {}, [name]), element('p', { class: 'hint' }, prose(description)),
      ...entries.map((entry) => article(api, entry)),
    ]));
    const links = entries.map(({ method, operation }) => element('li', { 'data-of': operation.operationId }, [
      element('a', { href: `#${operation.operationId}` }, [
        element('span', { class: `method ${method}` }, [method.toUpperCase()]), operation.summary,
      ]),
    ]));
    at('contents').append(element('div', { 'data-of': id }, [
      element('h2', {}, [element('a', { href: `#${id}` }, [name])]), element('ul', {}, links),
    ]));
  }
  events(api);
  errors(api);
}

at('filter').addEventListener('input', ({ target }) => {
  filter(target.value.toLowerCase().split(/\s+/).filter((word) => word !== ''));
});
at('unfold').addEventListener('click', ({ target }) => {
  const unfold = target.getAttribute('aria-pressed') !== 'true';
  target.setAttribute('aria-pressed', String(unfold));
  target.textContent = unfold ? 'Fold all' : 'Unfold all';
  for (const operation of document.querySelectorAll('.operation')) operation.open = unfold;
});
window.addEventListener('hashchange', follow);

try {
  const response = await fetch('/v1/openapi.json');
  if (!response.ok) throw new Error(`status ${response.status}`);
  show(await response.json());
  follow();
} catch (error) {
  at('fault').textContent = `The document cannot be read: ${error.message}.`;
  at('fault').hidden = false;
}
