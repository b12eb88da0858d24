// Tabs and links: #tab=nanogpt&step=3 in the address; ?tab=...&run=...&field=value is accepted on load. Back goes to the tab before.

import { follow, forms, tours, transports } from "./parts.js";
import { setGlossary } from "./glossary.js";

/** [[chapter id, [tab ids]], ...]; the Start page is a chapter without tabs. @type {[string, string[]][]} */
let chapters = [];

/**
 * @param {string} hash
 * @param {string} search
 */
export const wantedTab = (hash, search) =>
  new URLSearchParams(hash.replace(/^#/, "")).get("tab") || new URLSearchParams(search).get("tab");

/**
 * The address of a tab, or of a step of its walk-through. What a link has set stays in it, so that a reload sets it again.
 * @param {string} tab
 * @param {number} [step] from 0; none if it is negative
 */
export const addressOf = (tab, step = -1) =>
  `${location.pathname}${location.search}#tab=${tab}${step >= 0 ? `&step=${step + 1}` : ""}`;

/**
 * Which tab of the outer and of each inner row is selected: the answer to Gradio's `load`.
 * @param {[string, string[]][]} map
 */
export const tabs = (map) => {
  chapters = map;
  const holds = (/** @type {string | null} */ tab) =>
    map.find(([id, inner]) => id === tab || inner.includes(tab ?? ""));
  const wanted = wantedTab(location.hash, location.search);
  // a link to a tab that does not exist opens the first one, whose status line says so
  const tab = wanted && !holds(wanted) ? (map.find(([, inner]) => inner.length)?.[1][0] ?? null) : wanted;
  const chapter = holds(tab);
  const keep = { __type__: "update" };
  const rows = map.filter(([, inner]) => inner.length);
  return [
    chapter ? { ...keep, selected: chapter[0] } : keep,
    ...rows.map(([id]) => (chapter && id === chapter[0] ? { ...keep, selected: tab } : keep)),
  ];
};

/** @param {string} id */
const press = (id) => document.getElementById(id + "-button")?.click();

/**
 * Go to a tab as a click would, and let the browser's Back button come back.
 * @param {string} tab
 */
export const goTo = (tab) => {
  if (wantedTab(location.hash, location.search) !== tab) history.pushState(null, "", addressOf(tab));
  select(tab);
};

/** @param {string | null} tab */
const select = (tab) => {
  const chapter = chapters.find(([id, inner]) => id === tab || inner.includes(tab ?? ""));
  if (!chapter || !tab) return press(chapters[0]?.[0] ?? "");
  press(chapter[0]);
  if (chapter[0] === tab) return;
  let left = 40;
  const inner = () => {
    // the inner row is made when its chapter is first shown, and ignores clicks for a moment
    const node = document.getElementById(tab + "-button");
    if (node?.getAttribute("aria-selected") === "true" || !left--) return;
    node?.click();
    setTimeout(inner, 60);
  };
  inner();
};

/**
 * What the page's address asks for: settings of one tab, or a sentence about what is wrong with it; and the glossary.
 * @param {HTMLElement} _
 * @param {any} props
 * @param {any} watch
 */
export const link = (_, props, watch) => {
  follow(props, watch, (asked) => {
    if (asked.glossary) setGlossary(asked.glossary);
    if (!asked.topic) return;
    let left = 200;
    const apply = () => {
      const form = forms.get(asked.topic);
      const transport = transports.get(asked.topic);
      if (!form || !transport) return void (left-- && setTimeout(apply, 50)); // its tab is not made yet
      if (asked.experiment) {
        const waits = !form.ready();
        form.set(asked.experiment, asked.values);
        if (!waits) transport.preview();
      }
      if (asked.problem) transport.words(asked.problem, true);
    };
    apply();
  });
};

/** Listen to clicks on tabs, to Back and Forward, and to the arrow keys in a row of tabs. */
export const watchTabs = () => {
  addEventListener(
    "click",
    (event) => {
      // only a person's click writes the address, and only its hash
      const node = event.isTrusted && /** @type {Element} */ (event.target).closest?.('button[role="tab"]');
      if (!node) return;
      const id = node.id.replace(/-button$/, "");
      const chapter = chapters.find(([c]) => c === id);
      const shown = chapter?.[1].find(
        (t) => document.getElementById(t + "-button")?.getAttribute("aria-selected") === "true",
      );
      const tab = chapter ? (shown ?? chapter[1][0] ?? id) : id;
      const known = chapters.some(([c, inner]) => c === tab || inner.includes(tab));
      if (!known) return;
      for (const [topic, tour] of tours) if (topic !== tab) tour.leave();
      if (wantedTab(location.hash, location.search) !== tab) history.pushState(null, "", addressOf(tab));
    },
    true,
  );
  addEventListener("popstate", () => {
    const params = new URLSearchParams(location.hash.slice(1));
    const tab = wantedTab(location.hash, location.search);
    select(tab);
    for (const [topic, tour] of tours) if (topic !== tab) tour.leave();
    const step = Number(params.get("step"));
    if (tab && step) tours.get(tab)?.open(step - 1);
  });
  addEventListener("keydown", (event) => {
    const tab = /** @type {Element} */ (event.target).closest?.('button[role="tab"]');
    const by = /** @type {Record<string, number>} */ ({ ArrowRight: 1, ArrowLeft: -1 })[event.key];
    if (!tab || !by) return;
    const row = /** @type {HTMLElement[]} */ ([...(tab.parentElement?.querySelectorAll('button[role="tab"]') ?? [])]);
    const next = row[(row.indexOf(/** @type {HTMLElement} */ (tab)) + by + row.length) % row.length];
    next.focus();
    next.click();
  });
};
