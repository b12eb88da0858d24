// "Walk me through it": a card at the bottom edge that points, asks, sets and runs. Space and arrows move; in presenter mode it is the slides.

import { button, face, make } from "./dom.js";
import { closeOrphan, markTerms } from "./glossary.js";
import { keepTourStep, tourStep } from "./memory.js";
import { follow, forms, tours, transports } from "./parts.js";
import { addressOf, wantedTab } from "./tabs.js";

/**
 * @typedef {object} Step
 * @property {"look" | "ask" | "run"} kind
 * @property {string} text
 * @property {string} at a part of the page: idea, diagram, cards, controls, run, picture, saw, figures, more, or a panel's or setting's id
 * @property {string} [experiment]
 * @property {Record<string, any>} [settings]
 * @property {string[]} [answers]
 * @property {number} [question] the number of the question, for the server to decide
 */

/** Parts of the page by name. @type {Record<string, string>} */
const PLACES = {
  idea: "-idea",
  diagram: "-diagram",
  cards: "-cards",
  controls: "-form",
  run: "-transport",
  picture: "-picture",
  more: "-more",
};

/** What a step says while nothing has been guessed or run. @type {Record<string, string>} */
const NEXT = {
  look: "Next",
  ask: "Choose an answer, and it runs",
  wait: "The run decides first; Stop ends it",
  run: "Run it",
};

/**
 * The element that a step points at.
 * @param {string} topic
 * @param {string} at
 */
const placeOf = (topic, at) => {
  const tab = document.getElementById(topic);
  const scene = `#${topic}-picture .viz-scene:not([hidden])`;
  if (PLACES[at]) return document.getElementById(topic + PLACES[at]);
  if (at === "saw") return tab?.querySelector(`${scene} .viz-saw`);
  if (at === "figures") return tab?.querySelector(`${scene} .viz-figures`);
  const id = CSS.escape(at);
  return (
    tab?.querySelector(`${scene} [data-panel="${id}"], .viz-fields:not([hidden]) [data-setting="${id}"]`) ??
    document.getElementById(topic + "-picture")
  );
};

/**
 * The title of a tab with the button that starts the walk-through, and the walk-through itself.
 * @param {HTMLElement} element
 * @param {any} props
 * @param {any} watch
 */
export const tour = (element, props, watch) => {
  const root = /** @type {HTMLElement} */ (element.querySelector(".viz-tour"));
  const topic = root.dataset.topic ?? "";
  const opener = root.appendChild(button("viz-button viz-walk", "", () => open()));
  opener.hidden = true;
  /** @type {Step[]} */
  let steps = [];
  let minutes = 1;
  let at = -1;
  /** @type {HTMLElement | null} */
  let card = null;
  let guess = -1;
  /** Whether this step's run was started, is on, or has ended. @type {"" | "on" | "over"} */
  let ran = "";
  /** @type {{right: number | null, because: string} | null} */
  let verdict = null;
  /** What was guessed at each step and decided, for whoever goes back to it. @type {Map<number, {guess: number, verdict: {right: number | null, because: string}}>} */
  const decided = new Map();
  /** The guess whose run is on, also while the person looks at another step. @type {{at: number, guess: number} | null} */
  let pending = null;
  /** Whether the run that is on was started here; it ends with the walk-through. */
  let mine = false;
  /** @type {(() => void) | undefined} */
  let listening;
  /** @type {any} */
  let later = 0;

  const step = () => steps[at];
  const unlight = () => document.querySelectorAll(".viz-lit").forEach((node) => node.classList.remove("viz-lit"));
  const light = (/** @type {string} */ name) => {
    unlight();
    const place = placeOf(topic, name);
    const fold = place?.closest("details");
    if (fold) fold.open = true;
    place?.classList.add("viz-lit");
    // of what is higher than the window the beginning counts
    const block = (place?.getBoundingClientRect().height ?? 0) > innerHeight / 2 ? "start" : "center";
    place?.scrollIntoView({ block, behavior: "smooth" });
    clearTimeout(later);
    later = setTimeout(() => {
      // when it has come to rest, another experiment's picture has come, and what a run adds below is there
      const now = placeOf(topic, name);
      if (card && now !== place) light(name);
      else uncover(place);
    }, 800);
  };
  /** Scrolls on where the card covers what it points at: its beginning stays in the window. @param {Element | null | undefined} place */
  const uncover = (place) => {
    if (!place?.isConnected || !card) return;
    const box = place.getBoundingClientRect();
    const covered = box.bottom + 16 - card.getBoundingClientRect().top;
    if (covered > 0 && box.top > 20) scrollBy({ top: Math.min(covered, box.top - 20), behavior: "smooth" });
  };
  const address = () => history.replaceState(null, "", addressOf(topic, at));
  const heard = (/** @type {string} */ state) => {
    if (state === "idle") mine = false;
    if (!ran || !card) return void (mine || forms.get(topic)?.takeBack()); // its step was left while it was on
    ran = state === "idle" ? "over" : "on";
    draw();
  };
  const start = (/** @type {object | null} */ asked) => {
    const { experiment = "", settings = {} } = step();
    forms.get(topic)?.lend(experiment, settings);
    ran = "on";
    listening ??= transports.get(topic)?.onState(heard);
    transports.get(topic)?.start("run", asked);
    mine = true;
    light("picture");
    draw();
  };

  const answers = (/** @type {HTMLElement} */ place) => {
    const s = step();
    const group = place.appendChild(make("div", "viz-answers"));
    (s.answers ?? []).forEach((words, k) => {
      const node = group.appendChild(
        button("viz-button", words, () => {
          guess = k;
          verdict = null;
          pending = { at, guess };
          start({ question: s.question, answer: k });
        }),
      );
      node.setAttribute("aria-pressed", String(k === guess));
      node.disabled = guess >= 0 && !undecided();
      // on a small window the card keeps its room for the reason: of the answers the right one and the guess stay
      if (verdict && verdict.right !== null) node.hidden = k !== guess && k !== verdict.right;
      if (verdict && verdict.right === k) node.classList.add("viz-right");
      if (verdict && verdict.right !== null && guess === k && verdict.right !== k) node.classList.add("viz-wrong");
    });
  };
  /** A guess whose run ended before the server could decide it. */
  const undecided = () => ran === "over" && (!verdict || verdict.right === null);
  const words = () => {
    if (step().kind === "look") return "";
    if (step().kind === "run") return ran === "on" ? "It is running. Watch the picture." : "";
    if (guess < 0) return "Guess first; the run's own numbers will decide.";
    if (undecided())
      return `${verdict?.because ?? "The run ended before its figures could decide."} Guess again, or go on.`;
    if (!verdict) return "Running; the figures will decide …";
    if (verdict.right === null) return verdict.because; // its run is just ending
    const answer = (step().answers ?? [])[verdict.right];
    return (guess === verdict.right ? "Right. " : `It was “${answer}”. `) + verdict.because;
  };

  const draw = () => {
    const s = step();
    if (!s) return;
    if (!card) {
      card = document.body.appendChild(make("section", "viz-tour-card"));
      card.setAttribute("aria-label", "Walk-through");
      card.tabIndex = -1;
      card.addEventListener("keydown", keys);
    }
    const hadFocus = card.contains(document.activeElement);
    card.textContent = "";
    closeOrphan();
    const dots = card.appendChild(make("div", "viz-dots"));
    dots.setAttribute("aria-hidden", "true");
    steps.forEach((_, k) => dots.appendChild(make("span", k <= at ? "viz-dot viz-dot-on" : "viz-dot")));
    const body = card.appendChild(make("div", "viz-tour-body"));
    const text = body.appendChild(make("p", "viz-tour-text", ""));
    text.appendChild(make("strong", "", `Step ${at + 1} of ${steps.length}. `));
    text.appendChild(document.createTextNode(s.text));
    markTerms(text);
    if (s.kind === "ask") answers(body);
    body.appendChild(make("p", "viz-verdict", words())).setAttribute("aria-live", "polite");
    const bar = card.appendChild(make("div", "viz-buttons"));
    const back = bar.appendChild(button("viz-button", "Back", () => go(at - 1)));
    back.disabled = at === 0;
    if (s.kind === "run" && !ran) bar.appendChild(button("viz-button viz-next", NEXT.run, () => start(null)));
    else {
      const end = at === steps.length - 1;
      const next = bar.appendChild(
        button("viz-button viz-next", end ? "Done" : "Next →", () => (end ? shut(true) : go(at + 1))),
      );
      const waits = ran === "on" && !verdict;
      next.disabled = s.kind === "ask" && (guess < 0 || waits);
      if (next.disabled) next.title = waits ? NEXT.wait : NEXT.ask;
    }
    const leave = bar.appendChild(button("viz-button viz-close", "×", () => shut(false)));
    leave.setAttribute("aria-label", "Close the walk-through");
    document.body.style.setProperty("--viz-card", card.offsetHeight + 40 + "px"); // the page ends above it
    if (hadFocus || !document.activeElement || document.activeElement === document.body)
      card.focus({ preventScroll: true });
  };
  const advance = () => {
    const next = /** @type {HTMLButtonElement | null} */ (card?.querySelector(".viz-next"));
    if (next && !next.disabled) next.click();
  };
  const keys = (/** @type {KeyboardEvent} */ event) => {
    const target = /** @type {HTMLElement} */ (event.target);
    if (event.ctrlKey || event.metaKey || event.altKey || target.closest("input, textarea, select")) return;
    if (event.key === "Escape") shut(false);
    else if (event.key === "ArrowRight" || (event.key === " " && target.tagName !== "BUTTON")) advance();
    else if (event.key === "ArrowLeft") go(at - 1);
    else return;
    event.preventDefault();
  };

  /** What was guessed at this step before, and what became of it. */
  const recall = () => {
    const before = decided.get(at);
    const on = pending?.at === at && transports.get(topic)?.state() !== "idle" ? pending : null;
    guess = before?.guess ?? on?.guess ?? -1;
    verdict = before?.verdict ?? null;
    ran = before ? "over" : on ? "on" : "";
  };
  const go = (/** @type {number} */ to) => {
    if (to < 0 || to >= steps.length) return;
    at = to;
    recall();
    keepTourStep(topic, at);
    address();
    const { experiment, kind } = step();
    const idle = transports.get(topic)?.state() === "idle"; // else a run is on: it goes on, but for a look elsewhere
    const other = experiment && (idle || kind === "look") && forms.get(topic)?.read().experiment !== experiment;
    if (other || idle) forms.get(topic)?.takeBack();
    if (other) forms.get(topic)?.choose(experiment);
    draw();
    card?.scrollTo?.(0, 0);
    light(step().at);
  };
  const open = (/** @type {number | undefined} */ from = undefined) => {
    if (!steps.length) return;
    document.body.classList.add("viz-touring");
    go(Math.max(0, Math.min(steps.length - 1, from ?? tourStep(topic) ?? 0)));
    card?.focus({ preventScroll: true });
  };
  const shut = (/** @type {boolean} */ end) => {
    if (mine) transports.get(topic)?.stop();
    forms.get(topic)?.takeBack();
    unlight();
    card?.remove();
    card = pending = null;
    at = guess = -1;
    closeOrphan();
    document.body.classList.remove("viz-touring");
    if (end) keepTourStep(topic, null);
    if (wantedTab(location.hash, location.search) === topic) address();
    label();
    if (opener.checkVisibility?.()) opener.focus({ preventScroll: true });
  };
  const label = () => {
    const kept = tourStep(topic);
    const more = kept ? ` · go on at step ${kept + 1}` : "";
    face(opener, "play", `Walk me through it · ${steps.length} steps, ${minutes} min${more}`);
  };

  tours.set(topic, {
    open,
    leave: () => card && shut(false),
  });
  follow(props, watch, (message) => {
    if (message.steps && !steps.length) {
      steps = message.steps;
      opener.hidden = false;
      minutes = message.minutes;
      label();
      const asked = new URLSearchParams(location.hash.slice(1));
      const query = new URLSearchParams(location.search);
      const wanted =
        asked.get("tab") === topic ? asked.get("step") : query.get("tab") === topic ? query.get("step") : null;
      if (wanted && Number.isInteger(+wanted)) open(+wanted - 1);
    }
    if (!message.because || !pending || steps[pending.at].question !== message.question) return;
    if (message.right !== null) decided.set(pending.at, { guess: pending.guess, verdict: message });
    if (pending.at !== at || guess < 0) return;
    verdict = message;
    draw();
    light("saw");
  });
};
