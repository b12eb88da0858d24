// Recorded messages of a real run (tests/golden/messages.json) through the page's own code.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import { component } from "./page.js";
import { cards } from "../../assets/js/cards.js";
import { diagram } from "../../assets/js/diagram.js";
import { form, wrongNumber } from "../../assets/js/form.js";
import { done, keepForm, keepPicture, keptForm, keptPicture, tourStep } from "../../assets/js/memory.js";
import { forms, tours, transports } from "../../assets/js/parts.js";
import { picture } from "../../assets/js/picture.js";
import { tour } from "../../assets/js/tour.js";
import { transport } from "../../assets/js/transport.js";

const recorded = JSON.parse(readFileSync(new URL("../golden/messages.json", import.meta.url), "utf8"));
const pictures = recorded.map((/** @type {any} */ m) => m.picture).filter(Boolean);
/** @type {any} */
const nothing = () => {};
/** @type {() => Promise<void>} */
const drawn = () => new Promise((resolve) => requestAnimationFrame(() => setTimeout(() => setTimeout(resolve))));

const spec = [
  {
    name: "generate",
    question: "?",
    fields: [
      { name: "temperature", label: "Temperature", kind: "float", default: 0.8, slider: true, low: 0, high: 5 },
      { name: "prompt", label: "Prompt", kind: "str", default: "BRAMBLE:" },
      {
        name: "model",
        label: "Model",
        kind: "str",
        default: "shipped",
        slider: true,
        choices: [
          ["shipped", "a"],
          ["own", "b"],
        ],
      },
      { name: "file", label: "File", kind: "str", default: "", when: ["model", "own"] },
      { name: "seed", label: "Seed", kind: "int", default: 0, more: true },
    ],
  },
  { name: "train", question: "?", fields: [{ name: "steps", label: "Steps", kind: "int", default: 250 }] },
  {
    name: "tune",
    question: "?",
    fields: [
      { name: "steps", label: "Steps", kind: "int", default: 250 },
      {
        name: "base",
        label: "Base",
        kind: "str",
        default: "small",
        choices: [
          ["small", "a"],
          ["large", "b"],
        ],
        sets: { large: { steps: 12 } },
      },
    ],
  },
];

/** A tab with its parts. */
const tab = (/** @type {string} */ topic) => {
  /** @type {any} */
  const sent = [];
  /** @type {any} */
  const signals = [];
  /** @type {any} */
  const asked = [];
  const parts = Object.fromEntries(
    ["transport", "form", "picture", "diagram", "cards", "tour"].map((n) => [n, component(n, topic)]),
  );
  const { props } = parts.transport;
  transport(
    parts.transport.element,
    Object.assign(props, { limit: "Ready." }),
    parts.transport.watch,
    (event) => sent.push([event, props.value]),
    { signal: (/** @type {any} */ message) => signals.push(message) },
  );
  form(parts.form.element, parts.form.props, parts.form.watch);
  diagram(parts.diagram.element, parts.diagram.props, parts.diagram.watch);
  cards(parts.cards.element, parts.cards.props, parts.cards.watch, (event) =>
    asked.push([event, parts.cards.props.value]),
  );
  tour(parts.tour.element, parts.tour.props, parts.tour.watch);
  picture(parts.picture.element, parts.picture.props, parts.picture.watch, nothing);
  parts.form.send({ spec });
  parts.cards.send({ cards: spec.map((e) => ({ ...e, title: e.name, level: "start", seconds: 1, note: "" })) });
  return { parts, sent, signals, asked };
};

test("prose and code are asked for once, of the experiment that is chosen when the picture has been drawn", async () => {
  const { asked } = tab("prose");
  assert.deepEqual(asked, []);
  forms.get("prose")?.choose("train");
  await drawn();
  assert.deepEqual(asked, [["about", { experiment: "train", module: "" }]]);
  forms.get("prose")?.choose("train");
  forms.get("prose")?.choose("generate");
  await drawn();
  assert.deepEqual(asked.slice(1), [["about", { experiment: "generate", module: "" }]]);
});

test("a choice brings the defaults of other settings, but for those that a person has changed", () => {
  tab("follow");
  const form = /** @type {any} */ (forms.get("follow"));
  form.choose("tune");
  const pick = (/** @type {string} */ name, /** @type {string} */ value) => {
    const input = /** @type {any} */ (document.querySelector(`#follow-tune-${name}-in`));
    input.value = value;
    input.dispatchEvent(new window.Event("input"));
  };
  pick("base", "large");
  assert.equal(form.get("steps"), "12");
  pick("base", "small");
  assert.equal(form.get("steps"), "250");
  pick("steps", "99");
  pick("base", "large");
  assert.equal(form.get("steps"), "99");
});

test("a start that was given up before its run had a name ends with the run's first word", () => {
  const { parts, sent, signals } = tab("early");
  transports.get("early")?.start("run");
  const { asked } = sent.at(-1)[1];
  transports.get("early")?.stop();
  parts.transport.send({ run: "late", state: "running", status: "starting …", start: asked });
  assert.deepEqual(signals.at(-1), { run: "late", action: "stop" });
  assert.equal(transports.get("early")?.state(), "idle");
  transports.get("early")?.start("run");
  parts.transport.send({ run: "next", state: "running", status: "step 1", start: sent.at(-1)[1].asked });
  assert.equal(transports.get("early")?.state(), "running");
});

test("a run is drawn: frames, what you saw, cards, the table, the log", () => {
  const { parts } = tab("one");
  for (const message of pictures) parts.picture.send({ ...message });
  const root = parts.picture.element;
  assert.equal(root.querySelectorAll(".viz-reader span").length, 4); // the prompt and three tokens
  const sentences = [...root.querySelectorAll(".viz-saw p")].map((p) => p.textContent);
  assert.deepEqual(sentences, pictures.at(-1).takeaways);
  const headlines = pictures.at(-1).figures.filter((/** @type {any} */ f) => f.headline);
  assert.equal(root.querySelectorAll(".viz-figure").length, headlines.length);
  assert.equal(root.querySelectorAll(".viz-strip tbody tr").length, pictures.at(-1).figures.length);
  assert.deepEqual(done().one, ["generate"]);
  assert.ok(parts.cards.element.querySelector('[data-name="generate"]')?.classList.contains("viz-done"));
});

test("the last message of a run is taken once though Gradio delivers it twice", () => {
  const { parts } = tab("twice");
  for (const message of [...pictures, pictures.at(-1)]) parts.picture.send({ ...message });
  assert.equal(parts.picture.element.querySelectorAll(".viz-reader span").length, 4);
});

test("a message for a panel that is not there is no silence", () => {
  const { parts } = tab("wrong");
  parts.picture.send({ ...pictures[0] });
  /** @type {any[]} */
  const thrown = [];
  const real = globalThis.setTimeout;
  // @ts-expect-error the page throws out of Gradio's reach
  globalThis.setTimeout = (act) => {
    try {
      act();
    } catch (problem) {
      thrown.push(String(problem));
    }
  };
  parts.picture.send({ ...pictures[0], id: "x", open: undefined, updates: '[["nowhere", {"text": "a"}]]' });
  globalThis.setTimeout = real;
  assert.match(thrown.join(), /has no panel “nowhere”/);
});

test("the form says what is typed, keeps it, and shows what matters", () => {
  const { parts, sent } = tab("typed");
  const own = forms.get("typed");
  assert.deepEqual(own?.read().values, {
    temperature: "0.8",
    prompt: "BRAMBLE:",
    model: "shipped",
    file: "",
    seed: "0",
  });
  const input = /** @type {HTMLInputElement} */ (document.getElementById("typed-generate-temperature-in"));
  input.value = "0,01";
  input.dispatchEvent(new window.Event("input"));
  assert.equal(own?.read().values.temperature, "0,01"); // as it was typed: Python reads it
  assert.equal(/** @type {HTMLElement} */ (parts.form.element.querySelector('[data-setting="file"]')).hidden, true);
  assert.equal(parts.form.element.querySelectorAll('[data-setting="model"] input[type="range"]').length, 0); // a list needs none
  own?.put("model", "own");
  assert.equal(/** @type {HTMLElement} */ (parts.form.element.querySelector('[data-setting="file"]')).hidden, false);
  assert.equal(keptForm("typed", location.search)?.all.generate.temperature, "0,01");
  assert.equal(keptForm("typed", "?another=link"), null);
  own?.choose("train");
  assert.deepEqual(sent.at(-1)[0], "preview");
  assert.equal(parts.cards.element.querySelector('[aria-checked="true"]')?.getAttribute("data-name"), "train");
});

test("a number that is wrong says so beside its field, once it is typed, and not longer than it is wrong", () => {
  const { parts } = tab("wrongnumber");
  const input = /** @type {HTMLInputElement} */ (document.getElementById("wrongnumber-generate-temperature-in"));
  const words = () => parts.form.element.querySelector("#wrongnumber-generate-temperature-in-wrong")?.textContent;
  const type = (/** @type {string} */ value, /** @type {string[]} */ ...events) => {
    input.value = value;
    for (const event of events) input.dispatchEvent(new window.Event(event));
    return [words(), input.getAttribute("aria-invalid")];
  };
  assert.deepEqual(type("9", "input"), ["", "false"]);
  assert.deepEqual(type("9", "change"), ["Please give a number from 0 to 5.", "true"]);
  assert.deepEqual(type("0,5", "input"), ["", "false"]);
  type("much", "change");
  forms.get("wrongnumber")?.put("temperature", "1");
  assert.equal(words(), "");
});

test("what is wrong with a number", () => {
  const whole = /** @type {any} */ ({ kind: "int", low: 1, high: 8 });
  for (const good of ["1", " 8 ", "+3", "2.0"]) assert.equal(wrongNumber(whole, good), "");
  for (const bad of ["", "0", "9", "2,5", "two", "NaN", "Infinity"])
    assert.equal(wrongNumber(whole, bad), "Please give a whole number from 1 to 8.");
  assert.equal(
    wrongNumber(/** @type {any} */ ({ kind: "float", low: 0 }), "-1"),
    "Please give a number of at least 0.",
  );
  assert.equal(wrongNumber(/** @type {any} */ ({ kind: "float" }), "1e400"), "Please give a number.");
});

test("after a reload the form and the picture come back and the page says that the run ended", () => {
  keepForm(
    "again",
    { experiment: "train", all: { generate: { prompt: "mine" }, train: { steps: "7" } } },
    location.search,
  );
  keepPicture("again", { messages: pictures, ended: false });
  const { parts } = tab("again");
  assert.deepEqual(forms.get("again")?.read(), { experiment: "train", values: { steps: "7" } });
  assert.equal(/** @type {any} */ (document.getElementById("again-generate-prompt-in")).value, "mine");
  parts.picture.send({ ...pictures[0], id: "start", open: { ...pictures[0].open, preview: true } });
  assert.equal(parts.picture.element.querySelectorAll(".viz-reader span").length, 4);
  assert.match(parts.transport.element.querySelector(".viz-status")?.textContent ?? "", /so your run ended/);
  assert.equal(keptPicture("again")?.ended, true);
});

const steps = [
  { kind: "look", text: "Look.", at: "idea" },
  {
    kind: "ask",
    text: "How much?",
    at: "run",
    experiment: "generate",
    settings: { temperature: 0 },
    answers: ["little", "much"],
    question: 0,
  },
  { kind: "run", text: "Run.", at: "picture", experiment: "train", settings: { steps: 3 } },
];
const press = (/** @type {string} */ key) =>
  document.querySelector(".viz-tour-card")?.dispatchEvent(new window.KeyboardEvent("keydown", { key, bubbles: true }));
const card = () => /** @type {HTMLElement} */ (document.querySelector(".viz-tour-card"));

test("a walk-through waits for a guess, runs, tells who was right, and gives the person's settings back", () => {
  const { parts, sent } = tab("walk");
  parts.tour.send({ steps, minutes: 2 });
  forms.get("walk")?.put("temperature", "1.5");
  tours.get("walk")?.open(0);
  assert.match(card().textContent ?? "", /Step 1 of 3/);
  press("ArrowRight");
  assert.match(card().textContent ?? "", /How much\?/);
  assert.equal(/** @type {HTMLButtonElement} */ (card().querySelector(".viz-next")).disabled, true);
  press("ArrowRight"); // no way on without a guess
  assert.match(card().textContent ?? "", /Step 2 of 3/);
  /** @type {HTMLElement} */ (card().querySelectorAll(".viz-answers button")[1]).click();
  assert.deepEqual(
    [sent.at(-1)[0], sent.at(-1)[1].values.temperature, sent.at(-1)[1].guess],
    ["start", "0", { question: 0, answer: 1 }],
  );
  parts.tour.send({ question: 0, answer: 1, right: 0, because: "It was 0.1." });
  assert.match(card().textContent ?? "", /It was “little”\. It was 0\.1\./);
  assert.match(location.hash, /step=2/);
  assert.equal(keptForm("walk", location.search)?.all.generate.temperature, "1.5"); // for a reload while it runs
  press("ArrowRight"); // the run goes on, and its settings stay with it
  assert.equal(forms.get("walk")?.read().values.temperature, "0");
  parts.transport.send({ run: "a", state: "idle", status: "done" });
  assert.equal(forms.get("walk")?.read().values.temperature, "1.5");
  press("Escape");
  assert.equal(card(), null);
});

test("what a person changes by hand during a guess's run is theirs", () => {
  const { parts, sent, signals } = tab("byhand");
  parts.tour.send({ steps, minutes: 2 });
  forms.get("byhand")?.put("seed", "9");
  tours.get("byhand")?.open(1);
  /** @type {HTMLElement} */ (card().querySelector(".viz-answers button")).click();
  assert.equal(sent.at(-1)[1].values.seed, "0");
  parts.transport.send({ run: "a", state: "running", status: "step 1" });
  const input = /** @type {HTMLInputElement} */ (document.getElementById("byhand-generate-prompt-in"));
  input.value = "KING:";
  input.dispatchEvent(new window.Event("input"));
  press("Escape"); // the run ends with the walk-through
  assert.deepEqual(signals.at(-1), { run: "a", action: "stop" });
  const { temperature, prompt, seed } = forms.get("byhand")?.read().values ?? {};
  assert.deepEqual([temperature, prompt, seed], ["0.8", "KING:", "9"]);
});

test("a guess whose run was stopped while it waited stays open, and can be made again", () => {
  const { parts, sent } = tab("waits");
  parts.tour.send({ steps, minutes: 2 });
  tours.get("waits")?.open(1);
  /** @type {HTMLElement} */ (card().querySelector(".viz-answers button")).click();
  assert.match(card().textContent ?? "", /the figures will decide/);
  transports.get("waits")?.stop();
  assert.match(card().textContent ?? "", /ended before its figures could decide/);
  assert.equal(sent.at(-1)[0], "cancel");
  /** @type {HTMLElement} */ (card().querySelectorAll(".viz-answers button")[1]).click();
  assert.deepEqual(sent.at(-1)[1].guess, { question: 0, answer: 1 });
  press("Escape");
});

test("a run that was about to take another's place in the queue does not start once it is stopped", async () => {
  const { sent } = tab("about");
  const own = transports.get("about");
  own?.start("run");
  own?.start("run"); // the first one still waits: it is cancelled, the second one comes a moment later
  own?.stop();
  await new Promise((done) => setTimeout(done, 300));
  assert.deepEqual(
    sent.map((/** @type {any} */ [event]) => event).filter((/** @type {string} */ e) => e !== "preview"),
    ["start", "cancel"],
  );
  assert.equal(own?.state(), "idle");
});

test("a person has one run in a tab: the one that is on ends before the next one starts", () => {
  const { parts, sent, signals } = tab("alone");
  const own = transports.get("alone");
  const starts = () => sent.filter((/** @type {any} */ [event]) => event === "start").length;
  own?.start("run");
  parts.transport.send({ run: "a", state: "running", status: "step 1" });
  own?.start("run");
  assert.deepEqual([starts(), own?.state(), signals.at(-1)], [1, "queued", { run: "a", action: "stop" }]);
  parts.transport.send({ run: "a", state: "running", status: "step 2" }); // on its way when the stop was sent
  assert.equal(own?.state(), "queued");
  const last = { run: "a", state: "idle", status: "stopped after 2 steps" };
  parts.transport.send(last);
  assert.deepEqual([starts(), own?.state()], [2, "queued"]);
  parts.transport.send({ ...last }); // Gradio delivers it twice
  assert.equal(own?.state(), "queued");
  parts.transport.send({ run: "b", state: "running", status: "step 1" });
  own?.reset();
  parts.transport.send({ run: "b", state: "idle", status: "stopped" });
  assert.deepEqual([sent.at(-1)[0], own?.state()], ["reset", "idle"]);
});

test("a question that the run could not decide says why", () => {
  const { parts } = tab("open");
  parts.tour.send({ steps, minutes: 2 });
  tours.get("open")?.open(1);
  /** @type {HTMLElement} */ (card().querySelectorAll(".viz-answers button")[0]).click();
  parts.tour.send({
    question: 0,
    answer: 0,
    right: null,
    because: "The run ended before it had measured “loss”, so this stays open.",
  });
  assert.match(card().textContent ?? "", /before it had measured/);
  press("Escape");
});

test("a part of the diagram lights up and shows the run's number", () => {
  const { parts } = tab("lit");
  parts.diagram.send({
    size: [100, 50],
    alt: "a model",
    shapes: [{ kind: "box", x: 0, y: 0, w: 40, h: 20, title: "loss", size: "−ln p", part: "loss" }],
  });
  parts.picture.send({ ...pictures[0], parts: { loss: "1.85 nats" } });
  const lit = parts.diagram.element.querySelector('[data-part="loss"]');
  assert.ok(lit?.classList.contains("viz-d-lit"));
  assert.match(lit?.textContent ?? "", /1\.85 nats/);
  assert.equal(transports.get("lit")?.state(), "idle");
});

test("what another page or an older version has kept is not there", () => {
  for (const value of [[], 5, "x", { messages: "x", form: 5 }, { messages: [{ scene: "zzz" }] }, { experiment: 3 }]) {
    for (const key of ["form:odd", "picture:odd"]) sessionStorage.setItem(key, JSON.stringify(value));
    for (const key of ["done", "step:odd"]) localStorage.setItem(key, JSON.stringify(value));
    assert.deepEqual([keptForm("odd", ""), keptPicture("odd"), done()], [null, null, {}]);
    assert.equal(tourStep("odd"), value === 5 ? 5 : null);
  }
  localStorage.setItem("done", JSON.stringify({ nanogpt: "train" }));
  assert.deepEqual(done(), {});
  localStorage.clear();
});
