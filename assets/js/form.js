// The controls of a tab, made from the settings that the topic's Config declares. The server checks every value.

import { button, make } from "./dom.js";
import { markTerms } from "./glossary.js";
import { keepForm, keptForm } from "./memory.js";
import { cards, follow, forms, Signal, transports } from "./parts.js";

/**
 * @typedef {object} Field
 * @property {string} name
 * @property {string} label
 * @property {"int" | "float" | "bool" | "str" | "bytes"} kind
 * @property {string} [unit]
 * @property {string} [units]
 * @property {string} [help]
 * @property {any} [default]
 * @property {number} [low]
 * @property {number} [high]
 * @property {boolean} [slider]
 * @property {boolean} [more]
 * @property {[string, string][]} [choices]
 * @property {[string, string]} [when] this setting matters only if that one has that value
 * @property {Record<string, Record<string, any>>} [sets] value of a choice: the defaults that other settings have with it
 * @property {string} [file] id of the upload that takes it
 */

/** @typedef {{field: Field, row: HTMLElement, get?: () => any, set?: (value: any) => void}} Control */

/**
 * A field's control: select, text, number (with a slider beside it), or checkbox.
 * @param {Field} field
 * @param {string} id
 */
const inputOf = (field, id) => {
  /** @type {HTMLSelectElement | HTMLTextAreaElement | HTMLInputElement} */
  let input;
  if (field.choices) {
    input = make("select");
    for (const [value, words] of field.choices) input.appendChild(make("option", "", words)).value = value;
  } else if (field.kind === "str") {
    input = make("textarea");
    input.rows = 3;
  } else {
    input = make("input");
    input.type = field.kind === "bool" ? "checkbox" : "text"; // a number as text: 0,01 arrives as it was typed
    if (field.kind !== "bool") {
      input.inputMode = field.kind === "int" ? "numeric" : "decimal";
      input.className = "viz-number-in";
      input.autocomplete = "off";
    }
  }
  input.id = id;
  input.name = field.name;
  return input;
};

/**
 * What is wrong with a number as it was typed, in one sentence; the server, which checks again, has the last word.
 * @param {Field} field
 * @param {string} text
 */
export const wrongNumber = (field, text) => {
  const { low, high } = field;
  const number = text.trim() ? Number(text.trim().replace(",", ".")) : NaN;
  const fits = Number.isFinite(number) && number >= (low ?? -Infinity) && number <= (high ?? Infinity);
  if (fits && (field.kind === "float" || Number.isInteger(number))) return "";
  const kind = field.kind === "int" ? "a whole number" : "a number";
  if (low === undefined && high === undefined) return `Please give ${kind}.`;
  if (high === undefined) return `Please give ${kind} of at least ${low}.`;
  return `Please give ${kind} ${low === undefined ? "up" : `from ${low}`} to ${high}.`;
};

/**
 * @param {HTMLElement} place
 * @param {Field} field
 * @param {string} id
 * @param {() => void} changed
 * @returns {Control}
 */
const controlOf = (place, field, id, changed) => {
  const row = place.appendChild(make("div", "viz-field"));
  row.dataset.setting = field.name;
  if (field.file) return { field, row };
  const unit = field.unit && !field.label.toLowerCase().includes(field.unit) ? ` (${field.units})` : "";
  row.appendChild(make("label", "", field.label + unit)).htmlFor = id;
  if (field.help) {
    const help = row.appendChild(make("small", "", field.help));
    help.id = id + "-help";
    markTerms(help);
  }
  const input = inputOf(field, id);
  const line = row.appendChild(make("div", "viz-line"));
  /** @type {HTMLInputElement | null} */
  let slider = null;
  if (field.slider && !field.choices) {
    slider = line.appendChild(make("input"));
    const step = field.kind === "int" ? 1 : 0.01;
    Object.assign(slider, { type: "range", min: field.low, max: field.high, step });
    slider.setAttribute("aria-label", field.label + ", slider");
    slider.oninput = () => {
      input.value = slider?.value ?? "";
      check();
      changed();
    };
  }
  line.appendChild(input);
  const wrong = row.appendChild(make("small", "viz-bad", ""));
  wrong.id = id + "-wrong";
  wrong.setAttribute("role", "alert");
  const check = (late = true) => {
    if (input.className !== "viz-number-in") return;
    const words = wrongNumber(field, input.value);
    if (words && !late) return; // not while it is being typed
    wrong.textContent = words;
    input.setAttribute("aria-invalid", String(!!words));
  };
  input.addEventListener("input", () => {
    if (slider) slider.value = input.value.replace(",", ".");
    check(false);
    changed();
  });
  input.addEventListener("change", () => check());
  input.setAttribute("aria-describedby", `${field.help ? id + "-help " : ""}${wrong.id}`);
  const box = input instanceof HTMLInputElement && input.type === "checkbox" ? input : null;
  const set = (/** @type {any} */ value) => {
    if (box) box.checked = !!value;
    else input.value = value;
    if (slider) slider.value = value;
    check();
  };
  set(field.default);
  return { field, row, set, get: () => (box ? box.checked : input.value) };
};

/**
 * @param {HTMLElement} element
 * @param {any} props
 * @param {any} watch
 */
export const form = (element, props, watch) => {
  const root = /** @type {HTMLElement} */ (element.querySelector(".viz-form"));
  const topic = root.dataset.topic ?? "";
  const change = new Signal();
  /** @type {{name: string, question: string, fields: Field[]}[] | null} */
  let spec = null;
  let chosen = "";
  /** @type {[string, Record<string, any>] | null} */
  let wanted = null;
  /** Whether this is a reload: the person's own form goes before what the link asks for. */
  let restored = false;
  /** @type {Map<string, Control>} */
  const fields = new Map(); // by "experiment.field"
  /** What the walk-through has set for a run of its own, and what the person had there. @type {{name: string, before: Record<string, any>, given: Record<string, any>} | null} */
  let lent = null;

  const own = (/** @type {string} */ name) => [...fields].filter(([key, f]) => key.startsWith(name + ".") && f.get);
  const valuesOf = (/** @type {string} */ name) =>
    Object.fromEntries(own(name).map(([, f]) => [f.field.name, /** @type {any} */ (f).get()]));
  /** The person's own values: where the walk-through has set some, those from before, but for what was changed by hand since. */
  const theirs = (/** @type {string} */ name) => {
    const now = valuesOf(name);
    if (lent?.name !== name) return now;
    const { before, given } = lent;
    return Object.fromEntries(
      Object.entries(now).map(([key, value]) => [key, value === given[key] ? before[key] : value]),
    );
  };
  const read = () => ({ experiment: chosen, values: valuesOf(chosen) });
  const keep = () => {
    const all = Object.fromEntries((spec ?? []).map((e) => [e.name, theirs(e.name)]));
    keepForm(topic, { experiment: chosen, all }, location.search);
  };
  const refresh = () => {
    // what depends on another setting shows when it matters
    for (const [key, f] of fields) {
      const [experiment] = key.split(".");
      const { when } = f.field;
      const other = when && fields.get(`${experiment}.${when[0]}`);
      const matters = experiment === chosen && (!when || String(other?.get?.()) === when[1]);
      f.row.hidden = !matters;
      if (f.field.file) document.getElementById(f.field.file)?.classList.toggle("viz-away", !matters);
    }
    for (const group of /** @type {NodeListOf<HTMLElement>} */ (root.querySelectorAll(".viz-fields")))
      group.hidden = group.dataset.experiment !== chosen;
    change.send();
  };
  const changed = () => {
    refresh();
    keep();
  };
  /**
   * A choice that brings defaults for other settings: those that stand at one of their defaults follow it.
   * @param {string} experiment
   * @param {Field} field
   */
  const follows = (experiment, field) => () => {
    const all = Object.values(field.sets ?? {});
    const brought = field.sets?.[fields.get(`${experiment}.${field.name}`)?.get?.()] ?? {};
    for (const name of new Set(all.flatMap(Object.keys))) {
      const other = fields.get(`${experiment}.${name}`);
      const usual = [other?.field.default, ...all.map((values) => values[name])].map(String);
      if (usual.includes(String(other?.get?.()))) other?.set?.(brought[name] ?? other.field.default);
    }
    changed();
  };
  const choose = (/** @type {string} */ name, quiet = false) => {
    if (!spec?.some((e) => e.name === name)) return;
    if (chosen && chosen !== name) transports.get(topic)?.stop();
    chosen = name;
    cards.get(topic)?.choose(name);
    refresh();
    if (quiet) return;
    keep();
    transports.get(topic)?.ready();
    transports.get(topic)?.preview();
  };
  const fill = (/** @type {string} */ experiment, /** @type {Record<string, any>} */ values, defaults = false) => {
    for (const [, f] of own(experiment)) {
      if (f.field.name in values) {
        f.set?.(values[f.field.name]);
        const more = f.row.closest("details");
        if (more && String(values[f.field.name]) !== String(f.field.default)) more.open = true;
      } else if (defaults) f.set?.(f.field.default);
    }
  };
  const set = (/** @type {string} */ experiment, /** @type {Record<string, any>} */ values) => {
    if (!spec) return void (wanted = [experiment, values]);
    if (restored) return;
    fill(experiment, values);
    choose(experiment, true);
  };
  const takeBack = () => {
    if (!lent) return;
    const { name } = lent;
    const values = theirs(name);
    lent = null;
    fill(name, values);
    changed();
  };
  const lend = (/** @type {string} */ experiment, /** @type {Record<string, any>} */ values) => {
    if (lent?.name !== experiment) takeBack();
    const before = theirs(experiment);
    fill(experiment, values, true);
    lent = { name: experiment, before, given: valuesOf(experiment) };
    choose(experiment, true);
  };
  const put = (/** @type {string} */ name, /** @type {any} */ value) => {
    for (const [key, f] of fields) if (f.set && key.endsWith("." + name)) f.set(value);
    changed();
  };

  const build = () => {
    for (const e of spec ?? []) {
      const group = root.appendChild(make("div", "viz-fields"));
      group.dataset.experiment = e.name;
      const controls = (/** @type {HTMLElement} */ place, /** @type {Field[]} */ some) => {
        for (const field of some)
          fields.set(
            `${e.name}.${field.name}`,
            controlOf(
              place,
              field,
              `${topic}-${e.name}-${field.name}-in`,
              field.sets ? follows(e.name, field) : changed,
            ),
          );
      };
      controls(
        group,
        e.fields.filter((f) => !f.more),
      );
      const others = e.fields.filter((f) => f.more);
      const more = others.length ? group.appendChild(make("details", "viz-more")) : null;
      if (more) {
        more.appendChild(
          make("summary", "", others.length === 1 ? "1 more setting" : `${others.length} more settings`),
        );
        controls(more, others);
      }
      (more ?? group).appendChild(
        button("viz-button viz-defaults", "Back to the defaults", () => {
          for (const [, f] of own(e.name)) f.set?.(f.field.default);
          changed();
        }),
      );
    }
    const kept = keptForm(topic, location.search);
    restored = !!kept;
    if (kept) for (const [name, values] of Object.entries(kept.all)) fill(name, values);
    const names = (spec ?? []).map(({ name }) => name);
    choose(kept && names.includes(kept.experiment) ? kept.experiment : names[0], true);
    transports.get(topic)?.formed();
    if (wanted) set(...wanted);
    if (wanted || kept) transports.get(topic)?.preview();
  };

  forms.set(topic, {
    read,
    set,
    lend,
    takeBack,
    put,
    choose,
    onChange: (handler) => change.on(handler),
    ready: () => !!spec,
    get: (name) => fields.get(`${chosen}.${name}`)?.get?.(),
  });
  follow(props, watch, (message) => {
    if (!message.spec || spec) return;
    spec = message.spec;
    build();
  });
};
