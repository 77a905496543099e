/** The icons at the top of index.html. */

const SVG = 'http://www.w3.org/2000/svg';

/** A new picture of the icon of that name. */
export function icon(name) {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('aria-hidden', 'true');
  svg.append(document.createElementNS(SVG, 'use'));
  setIcon(svg, name);
  return svg;
}

/** Shows another icon in place of the one shown. */
export function setIcon(svg, name) {
  svg.querySelector('use').setAttribute('href', `#${name}`);
}

/** Shows a device button as on or off. */
export function setDeviceButton(button, device, isOn) {
  button.setAttribute('aria-pressed', String(isOn));
  setIcon(button.querySelector('svg'), isOn ? device : `${device}-off`);
}
