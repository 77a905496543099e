/** Reading JSON Schemas as a person would: which fields there are, and what may be in them. */

/** How deep fields are followed. */
const DEPTH = 6;

/** What a reference stands for. */
export function resolve(api, object) {
  if (!object.$ref) return object;
  const found = object.$ref.slice(2).split('/').reduce((inner, key) => inner[key.replaceAll('~1', '/').replaceAll('~0', '~')], api);
  // What stands beside a reference counts as well.
  return { ...resolve(api, found), ...Object.fromEntries(Object.entries(object).filter(([key]) => key !== '$ref')) };
}

/** The one alternative that is not null, if there is but one. */
function withoutNull(api, schema) {
  const resolved = resolve(api, schema);
  const rest = resolved.anyOf?.filter((one) => one.type !== 'null');
  return rest?.length === 1 ? { ...resolve(api, rest[0]), description: resolved.description ?? resolve(api, rest[0]).description } : resolved;
}

function isNullable(schema) {
  return [schema.type].flat().includes('null') || (schema.anyOf?.some((one) => one.type === 'null') ?? false);
}

function words(schema) {
  return schema.enum ?? schema.oneOf?.flatMap((one) => one.enum ?? ('const' in one ? [one.const] : []));
}

function limits(schema) {
  const said = [];
  if (schema.minimum !== undefined && schema.maximum !== undefined) said.push(`${schema.minimum} to ${schema.maximum}`);
  else if (schema.minimum > 0) said.push(`from ${schema.minimum}`);
  if (schema.maxLength !== undefined) said.push(`${schema.minLength ?? 0} to ${schema.maxLength} characters`);
  if (schema.maxItems !== undefined) said.push(`${schema.minItems ?? 0} to ${schema.maxItems} entries`);
  if (schema.pattern?.startsWith('^') && /^\^[A-Z]{2}_/.test(schema.pattern)) said.push(`${schema.pattern.slice(1, 4)}…`);
  if (schema.default !== undefined && schema.default !== null && typeof schema.default !== 'object') said.push(`default ${schema.default}`);
  return said.length > 0 ? `, ${said.join(', ')}` : '';
}

/** A type in words. */
export function typeOf(api, schema) {
  const plain = withoutNull(api, schema);
  const nullable = isNullable(resolve(api, schema)) ? ' or null' : '';
  const known = words(plain)?.filter((word) => word !== null);
  if (known) return known.map((word) => `"${word}"`).join(', ') + limits(plain) + nullable;
  const type = [plain.type].flat().find((one) => one && one !== 'null') ?? 'anything';
  if (type === 'array') return `list of ${typeOf(api, plain.items ?? {}).replace(/^(object|string|integer)\b/, '$1s')}${limits(plain)}${nullable}`;
  if (type === 'object' && !plain.properties) {
    const values = plain.additionalProperties;
    return (values?.type ? `object of ${values.type}s` : 'object') + nullable;
  }
  const format = { 'date-time': 'time', date: 'day' }[plain.format] ?? plain.anyOf?.map((one) => one.format).join(' or ');
  return (format && type === 'string' ? format : type) + limits(plain) + nullable;
}

/**
 * Every field of a body, the inner ones behind those they are in: `tracks[].layers[].rid`.
 * @returns {{name: string, required: boolean, type: string, about: string}[]}
 */
export function fields(api, schema, before = '', depth = DEPTH) {
  const plain = withoutNull(api, schema);
  if ([plain.type].flat().includes('array')) return fields(api, plain.items ?? {}, `${before}[]`, depth);
  if (!plain.properties || depth === 0) return [];
  return Object.entries(plain.properties).flatMap(([key, value]) => {
    const name = before === '' ? key : `${before}.${key}`;
    const field = {
      name,
      required: plain.required?.includes(key) ?? false,
      type: typeOf(api, value),
      about: withoutNull(api, value).description ?? '',
    };
    return [field, ...fields(api, value, name, depth - 1)];
  });
}
