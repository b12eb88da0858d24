import { Bin, button, make } from "../dom.js";
import { forms, transports } from "../parts.js";

/** What had the focus when a new run replaced the picture: until the person goes elsewhere. @type {{topic: string, name: string} | null} */
let held = null;
for (const kind of ["focusin", "pointerdown"])
  globalThis.document?.addEventListener(kind, (event) => {
    if (!(/** @type {Element} */ (event.target).closest?.(".viz-pairs"))) held = null;
  });

/**
 * Two texts to choose from, one pair after the other. The setting `field` holds the choices ("abba"), so a link holds them too;
 * `chooser` is the setting that says who chooses, and `me` its value for the person. A click makes it so and runs anew.
 * Data: {pairs, field, chooser, me, picks: what a rule likes better ("ab-"), who: the rule in words, fewest: to learn from}.
 * @type {import("../types.js").Mount}
 */
export const mount = (place, spec) => {
  const bin = new Bin();
  const root = place.appendChild(make("div", "viz-pairs"));
  /** @type {any} */
  let data = null;
  let drawn = "";
  let topic = "";
  const get = (/** @type {string} */ name) => forms.get(topic)?.get(name);
  const put = (/** @type {string} */ text, /** @type {string} */ name) => {
    forms.get(topic)?.put(data.chooser, data.me);
    forms.get(topic)?.put(data.field, text);
    draw(name);
    if (text.length >= data.fewest) transports.get(topic)?.again();
    else transports.get(topic)?.reset();
  };
  const choose = (/** @type {string} */ letter) => {
    const sofar = get(data.field) || "";
    if (sofar.length < data.pairs.length) put(sofar + letter, letter);
  };

  const sentence = (/** @type {string} */ sofar, /** @type {number} */ at, /** @type {boolean} */ self) => {
    const all = data.pairs.length;
    const few = data.fewest - sofar.length;
    const more = self && few > 0 ? ` ${few} more, and the model begins to learn.` : "";
    const both = data.picks[at] === "-" ? " (likes both the same here)" : "";
    const who = self
      ? `You have chosen ${sofar.length} of ${all} times.${more}`
      : `Click a card: after ${data.fewest} clicks a model learns your taste. Until then a simulated person, ${data.who}, is choosing${both}.`;
    if (sofar.length >= all) return `${who} There are no more pairs.`;
    return `${who} Pair ${at + 1}: which do you like better? Keys: ← and →.`;
  };

  const draw = (/** @type {string} */ name = "") => {
    const sofar = get(data.field) || "";
    const full = sofar.length >= data.pairs.length;
    const at = Math.min(sofar.length, data.pairs.length - 1);
    const self = get(data.chooser) === data.me;
    if ([sofar, self].join() === drawn) return;
    drawn = [sofar, self].join();
    const focused = /** @type {HTMLElement} */ (document.activeElement);
    if (root.contains(focused)) held = { topic, name: name || focused.dataset.name || "" };
    root.textContent = "";
    root.appendChild(make("p", "viz-note", sentence(sofar, at, self))).setAttribute("aria-live", "polite");
    const cards = root.appendChild(make("div", "viz-choices"));
    for (const [k, letter] of ["a", "b"].entries()) {
      const card = cards.appendChild(button("viz-button viz-choice", data.pairs[at][k], () => choose(letter)));
      card.dataset.name = letter;
      card.disabled = full;
      if (self || data.picks[at] !== letter) continue;
      card.classList.add("viz-picked");
      card.appendChild(make("small", "", `\nthe choice of ${data.who}`));
    }
    const bar = root.appendChild(make("div", "viz-buttons"));
    const back = bar.appendChild(
      button("viz-button", "Take back the last choice", () => put(sofar.slice(0, -1), "back")),
    );
    const clear = bar.appendChild(button("viz-button", "Forget my choices", () => put("", "forget")));
    [back.dataset.name, clear.dataset.name] = ["back", "forget"];
    back.disabled = clear.disabled = !sofar;
    if (held?.topic === topic && document.activeElement === document.body) {
      // the focus went with what was replaced
      /** @type {HTMLElement | null} */
      const again =
        root.querySelector(`[data-name="${held.name}"]:not(:disabled)`) || root.querySelector("button:not(:disabled)");
      again?.focus({ preventScroll: true });
    }
  };

  bin.on(root, "keydown", (event) => {
    const letter = /** @type {Record<string, string>} */ ({ ArrowLeft: "a", ArrowRight: "b" })[event.key];
    if (!letter || !data || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    choose(letter);
  });

  return {
    show: (frames) => {
      if (!frames.length || !frames[0][spec.id]) return;
      if (!data) {
        topic = /** @type {HTMLElement} */ (place.closest("[data-topic]")).dataset.topic || "";
        bin.add(forms.get(topic)?.onChange(() => data && draw()) ?? (() => {})); // the form may be changed by hand
      }
      data = frames[0][spec.id];
      drawn = "";
      draw();
    },
    destroy: () => bin.empty(),
  };
};
