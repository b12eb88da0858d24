// Small things that every part of the page uses. Text from users or models reaches the page only through textContent.

/**
 * An element with a class and a text.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {string} [className]
 * @param {string} [text]
 * @returns {HTMLElementTagNameMap[K]}
 */
export const make = (tag, className, text) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
};

/**
 * A button that does something.
 * @param {string} className
 * @param {string} text
 * @param {(event: MouseEvent) => void} act
 */
export const button = (className, text, act) => {
  const node = make("button", className, text);
  node.type = "button";
  node.onclick = act;
  return node;
};

/** @type {Record<string, string>} */
const ICONS = {
  play: "M4 2l10 6-10 6z",
  pause: "M3 2h4v12H3zM9 2h4v12H9z",
  on: "M2 2l8 6-8 6zM11 2h3v12h-3z",
  back: "M14 2L6 8l8 6zM5 2H2v12h3z",
  stop: "M3 3h10v10H3z",
  reset: "M8 2a6 6 0 1 0 6 6h-2a4 4 0 1 1-4-4v3l5-4-5-4z",
};

const SVG = "http://www.w3.org/2000/svg";

/**
 * An SVG element with its attributes.
 * @param {string} tag
 * @param {Record<string, string | number>} attributes
 * @returns {SVGElement}
 */
export const svg = (tag, attributes = {}) => {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, String(value));
  return node;
};

/** @param {string} name */
const icon = (name) => {
  const node = svg("svg", { viewBox: "0 0 16 16", width: 14, height: 14, "aria-hidden": "true", class: "viz-icon" });
  node.appendChild(svg("path", { d: ICONS[name], fill: "currentColor" }));
  return node;
};

/**
 * An icon on a button, with words beside it.
 * @param {HTMLElement} node
 * @param {string} name
 * @param {string} [text]
 */
export const face = (node, name, text) => {
  node.textContent = "";
  node.appendChild(icon(name));
  if (text) node.appendChild(document.createTextNode(" " + text));
};

/**
 * A number with about four digits: 3.142, 12,345, 1.5e-9; a dash for none.
 * @param {number | null | undefined} value
 */
export const short = (value) => {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1e12 || (value !== 0 && size < 1e-3)) return value.toExponential(1);
  return size >= 1e4 ? Math.round(value).toLocaleString("en") : String(+value.toPrecision(4));
};

/**
 * White space as a sign one can see.
 * @param {string} symbol
 */
export const visible = (symbol) => ({ "\n": "↵", " ": "␣", "\t": "⇥" })[symbol] ?? symbol;

/**
 * Bytes that traveled as base64.
 * @param {string} text
 */
export const bytesOf = (text) => Uint8Array.from(atob(text), (symbol) => symbol.charCodeAt(0));

/** What a part of the page has started and must end when it goes: listeners, observers, other parts. */
export class Bin {
  constructor() {
    /** @type {(() => void)[]} */
    this.ends = [];
  }

  /** @param {() => void} end */
  add(end) {
    this.ends.push(end);
  }

  /**
   * A listener that ends with this bin.
   * @param {EventTarget | null | undefined} target
   * @param {string} kind
   * @param {(event: any) => void} handler
   */
  on(target, kind, handler) {
    if (!target) return;
    target.addEventListener(kind, handler);
    this.add(() => target.removeEventListener(kind, handler));
  }

  /**
   * Calls back whenever the element changes its size.
   * @param {Element} element
   * @param {() => void} handler
   */
  onResize(element, handler) {
    const observer = new ResizeObserver(handler);
    observer.observe(element);
    this.add(() => observer.disconnect());
  }

  empty() {
    for (const end of this.ends.splice(0)) end();
  }
}

/**
 * Put a text on the clipboard; over plain http, where browsers hide the clipboard, through a selection.
 * @param {string} text
 * @returns {Promise<boolean>} whether it worked
 */
export const copy = async (text) => {
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // not allowed here: try the old way
    }
  }
  const area = document.body.appendChild(make("textarea", "viz-offscreen"));
  area.value = text;
  area.select();
  const worked = document.execCommand("copy");
  area.remove();
  return worked;
};

/**
 * Gradio draws its Markdown when it likes: act when it is there.
 * @param {Element | null} place
 * @param {(prose: HTMLElement) => void} act
 */
export const whenDrawn = (place, act) => {
  if (!place) return;
  const look = () => {
    const prose = /** @type {HTMLElement | null} */ (place.querySelector(".prose"));
    if (!prose?.textContent?.trim()) return;
    observer.disconnect();
    act(prose);
  };
  const observer = new MutationObserver(look);
  observer.observe(place, { childList: true, subtree: true });
  look();
};
