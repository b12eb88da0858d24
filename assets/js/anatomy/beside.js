// What stands around the map of an opened model: the buttons that open and knock out, and the next token.

import { button, make, short, visible } from "../dom.js";

/** @typedef {import("./paint.js").Part} Part */

const BARS = 4; // next tokens

/** @param {Part} part */
export const nameOf = ({ layer, part }) => {
  const own = part === "mlp" ? "the MLP of " : /^\d+$/.test(part) ? `head ${+part + 1} of ` : "";
  return `${own}layer ${layer + 1}`;
};

/**
 * The buttons for the whole model, its layers, and the parts of the one that is open. What a button does depends on the
 * mode: it goes there, or it knocks that part out.
 * @param {HTMLElement} place
 * @param {import("./model.js").Model} model
 * @param {{mode: string, focus: Part | null, knocked: Part | null, narrow: boolean}} now
 * @param {(part: Part | null) => void} press
 */
export const drawWays = (place, model, { mode, focus, knocked, narrow }, press) => {
  if (!model.ready) return place.replaceChildren();
  const { layers, heads } = model.told.shape;
  const is = (/** @type {Part | null} */ a, /** @type {Part} */ b) => a?.layer === b.layer && a.part === b.part;
  const way = (/** @type {string} */ words, /** @type {Part | null} */ part, /** @type {boolean} */ on) => {
    const one = button("viz-button", words, () => press(part));
    one.setAttribute("aria-pressed", String(on));
    return one;
  };
  const all = [way("Whole model", null, !focus && mode === "look")];
  for (let layer = 0; layer < layers; layer++) {
    const words = narrow && layers > 4 ? `L${layer + 1}` : `Layer ${layer + 1}`;
    const pressed = mode === "look" ? is(focus, { layer, part: "" }) : is(knocked, { layer, part: "all" });
    all.push(way(words, { layer, part: "" }, pressed));
    if (focus?.layer !== layer) continue;
    for (const part of [...Array(heads).keys()].map(String).concat("mlp")) {
      const name = part === "mlp" ? "MLP" : `Head ${+part + 1}`;
      all.push(way(name, { layer, part }, is(mode === "look" ? focus : knocked, { layer, part })));
    }
  }
  const held = [...place.children].findIndex((one) => one === document.activeElement);
  const was = held < 0 ? "" : place.children[held].textContent;
  place.replaceChildren(...all);
  if (held >= 0) all.find((one) => one.textContent === was)?.focus();
};

const percent = (/** @type {number} */ p) =>
  (p < 0.0005 ? "< 0.05" : short(+(100 * p).toPrecision(p > 0.1 ? 3 : 2))) + " %";

/**
 * Next tokens with their probabilities, before and now: the likeliest, and the one that is likeliest now.
 * @param {import("./model.js").Model} model
 * @param {any} gone
 * @returns {[string, number, number][]}
 */
export const rowsOf = (model, gone) => {
  /** @type {[string, number, number][]} */
  const all = model.told.candidates.map((/** @type {[string, number]} */ [token, p], /** @type {number} */ at) => [
    token,
    p,
    gone ? gone.p[at] : p,
  ]);
  const rows = all.slice(0, BARS);
  if (!gone || rows.some(([token]) => token === gone.best)) return rows;
  const best = all.find(([token]) => token === gone.best) ?? [gone.best, gone.best_before, gone.best_p];
  return [...rows.slice(0, BARS - 1), best];
};

/**
 * The likeliest next tokens, and beside them what they are without the part that is knocked out.
 * @param {HTMLElement} place
 * @param {import("./model.js").Model} model
 * @param {Part | null} knocked
 */
export const drawNext = (place, model, knocked) => {
  place.textContent = "";
  if (!model.ready) return;
  const list = place.appendChild(make("div", "viz-anatomy-next"));
  list.appendChild(make("h5", "", "The next token"));
  const gone = knocked && model.without(knocked.layer, knocked.part);
  for (const [token, p, now] of rowsOf(model, gone)) {
    const row = list.appendChild(make("div", "viz-anatomy-row"));
    row.appendChild(make("span", "viz-anatomy-token", visible(token)));
    const bars = row.appendChild(make("span", "viz-anatomy-bars"));
    const bar = (/** @type {number} */ share, /** @type {string} */ ink) => {
      const one = bars.appendChild(make("i"));
      one.style.width = `${100 * share}%`;
      one.style.background = `var(--viz-${ink})`;
    };
    bar(p, "a");
    if (gone) bar(now, "b");
    row.appendChild(make("span", "", gone ? `${percent(p)} → ${percent(now)}` : percent(p)));
  }
  place.appendChild(make("p", "", wordsOn(model, gone)));
};

/**
 * @param {import("./model.js").Model} model
 * @param {any} gone
 */
const wordsOn = (model, gone) => {
  if (gone)
    return (
      `Without ${nameOf(gone)} the likeliest is “${visible(gone.best)}” with` +
      ` ${Math.round(100 * gone.best_p)} %. The prediction changes by ${short(+gone.nats.toPrecision(3))} nats (KL divergence; to halve what was certain is 0.69).`
    );
  if (!model.told.knocked) return "";
  return (
    `Nothing is knocked out. On the whole model, orange frames mark heads and MLPs without which the prediction changes by more than ${model.told.needs}` +
    " nats, the thicker the more. “So far”: what the model would write if it stopped after that layer."
  );
};
