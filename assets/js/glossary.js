// Terms with a dotted line open their definition. One glossary for the whole app (core/glossary.py).

import { make } from "./dom.js";

/** @typedef {{name: string, text: string, also?: string[], forms?: string[]}} Term */

/** @type {Map<string, Term>} */
const terms = new Map();
/** @type {RegExp | null} */
let pattern = null;
/** Texts that were there before the glossary came. @type {Set<HTMLElement>} */
const waiting = new Set();
/** @type {HTMLElement | null} */
let card = null;
/** @type {HTMLElement | null} */
let opener = null;

/** @param {Term[]} all */
export const setGlossary = (all) => {
  for (const term of all) for (const name of [term.name, ...(term.forms ?? [])]) terms.set(name.toLowerCase(), term);
  const names = [...terms.keys()]
    .sort((a, b) => b.length - a.length)
    .map((n) => n.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  // a part of a longer word or of a file's name is no term
  pattern = new RegExp(`(?<![\\p{L}\\p{N}_-])(?:${names.join("|")})(?:s|es)?(?![\\p{L}\\p{N}_-]|\\.\\p{L})`, "giu");
  for (const node of waiting) markTerms(node);
  waiting.clear();
};

/**
 * The definition that a word in a text stands for.
 * @param {string} word
 */
export const termOf = (word) => {
  const low = word.toLowerCase();
  return terms.get(low) ?? terms.get(low.replace(/s$/, "")) ?? terms.get(low.replace(/es$/, "")) ?? null;
};

/**
 * Where a text holds terms, each the first time only: [start, end, term].
 * @param {string} text
 * @param {Set<Term>} seen
 * @returns {[number, number, Term][]}
 */
export const termsIn = (text, seen) => {
  /** @type {[number, number, Term][]} */
  const found = [];
  for (const match of pattern ? text.matchAll(pattern) : []) {
    const term = termOf(match[0]);
    if (!term || seen.has(term)) continue;
    seen.add(term);
    found.push([match.index, match.index + match[0].length, term]);
  }
  return found;
};

/** What pointing at a word, or leaving it, will do. @type {any} */
let later = 0;
/** Whether the definition was opened by pointing: then leaving closes it, and a click keeps it. */
let hovered = false;
const POINTED_MS = 350;

const close = () => {
  card?.remove();
  opener?.setAttribute("aria-expanded", "false");
  card = opener = null;
  hovered = false;
};

/** Closes a definition whose word is no longer on the page. */
export const closeOrphan = () => opener && !opener.isConnected && close();

const leave = () => {
  clearTimeout(later);
  if (hovered) later = setTimeout(() => hovered && close(), POINTED_MS);
};

const open = (/** @type {HTMLElement} */ button, /** @type {Term} */ term) => {
  const same = opener === button;
  close();
  if (same) return;
  opener = button;
  button.setAttribute("aria-expanded", "true");
  card = document.body.appendChild(make("div", "viz-term-card"));
  card.setAttribute("role", "note");
  card.onpointerenter = () => clearTimeout(later);
  card.onpointerleave = leave;
  card.appendChild(make("strong", "", term.name));
  card.appendChild(make("p", "", term.text));
  if (term.also?.length) card.appendChild(make("small", "", "Also called: " + term.also.join(", ")));
  const box = button.getBoundingClientRect();
  const left = Math.max(8, Math.min(box.left, innerWidth - card.offsetWidth - 8));
  card.style.left = left + scrollX + "px";
  const room = innerHeight - box.bottom > card.offsetHeight + 14; // else it stands above its word
  card.style.top = (room ? box.bottom + 6 : box.top - card.offsetHeight - 6) + scrollY + "px";
};

globalThis.document?.addEventListener("click", (event) => {
  const target = /** @type {Element} */ (event.target);
  if (!target.closest?.(".viz-term, .viz-term-card")) close();
});
globalThis.document?.addEventListener(
  "keydown",
  (event) => {
    if (event.key !== "Escape" || !card) return;
    event.stopPropagation(); // it closes this and nothing under it
    const back = opener;
    close();
    back?.focus();
  },
  true,
);

/**
 * Make the terms in a text into buttons that open their definition.
 * @param {HTMLElement} node
 */
export const markTerms = (node) => {
  if (!pattern) return void waiting.add(node);
  const walker = document.createTreeWalker(node, NodeFilter.SHOW_TEXT);
  /** @type {Text[]} */
  const texts = [];
  while (walker.nextNode()) texts.push(/** @type {Text} */ (walker.currentNode));
  /** @type {Set<Term>} */
  const seen = new Set();
  for (const text of texts) {
    if (text.parentElement?.closest(".viz-term, .katex, code, a, h1, h2, h4")) continue;
    let rest = text;
    let offset = 0;
    for (const [start, end, term] of termsIn(text.data, seen)) {
      const word = rest.splitText(start - offset);
      rest = word.splitText(end - start);
      offset = end;
      const button = make("button", "viz-term", word.data);
      button.type = "button";
      button.setAttribute("aria-expanded", "false");
      button.onclick = () => {
        clearTimeout(later);
        if (hovered && opener === button) hovered = false;
        else open(button, term);
      };
      button.onpointerenter = (event) => {
        clearTimeout(later);
        if (event.pointerType !== "mouse" || opener === button) return;
        later = setTimeout(() => {
          if (!button.isConnected) return;
          open(button, term);
          hovered = true;
        }, POINTED_MS);
      };
      button.onpointerleave = leave;
      word.replaceWith(button);
    }
  }
};
