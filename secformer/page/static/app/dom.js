/** Elements, made without HTML: a text that a person or a party gave can never become markup. */

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes and children (elements or texts). An attribute that is false, null or undefined is left
 * out. `css` sets custom properties. */
export function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same for a picture. */
export function drawn(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

export function byId(id) {
  return document.getElementById(id);
}

function filled(made, { css = {}, ...attributes }, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  for (const [name, value] of Object.entries(css)) made.style.setProperty(name, value);
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}
