// The parts of each tab, by topic, so that one can speak to another: the form, the buttons, the diagram, the walk-through.

/**
 * @typedef {object} Form
 * @property {() => {experiment: string, values: Record<string, any>}} read the settings as they are now
 * @property {(experiment: string, values: Record<string, any>) => void} set
 * @property {(experiment: string, values: Record<string, any>) => void} lend the settings of the walk-through's run, the others at their defaults
 * @property {() => void} takeBack what the person had before it, but for what was changed by hand since
 * @property {(name: string, value: any) => void} put a value in every experiment that has this setting
 * @property {(name: string) => any} get of the chosen experiment
 * @property {(experiment: string, quiet?: boolean) => void} choose
 * @property {(handler: () => void) => () => void} onChange calls back when a setting changes, by hand or not; returns what ends it
 * @property {() => boolean} ready whether the settings are known
 */

/**
 * @typedef {object} Transport
 * @property {(mode: string, guess?: object | null) => void} start a run; the one that is on ends first
 * @property {() => void} again the same, a moment later: a picture that can be clicked runs anew
 * @property {() => void} reset
 * @property {() => void} stop
 * @property {(words: string, bad?: boolean) => void} words say something in the status line
 * @property {() => void} ready back to the first words
 * @property {() => void} formed the settings are known now
 * @property {() => void} preview
 * @property {() => void} take
 * @property {() => string} state
 * @property {(handler: (state: string) => void) => () => void} onState
 */

/** @type {Map<string, Form>} */
export const forms = new Map();
/** @type {Map<string, Transport>} */
export const transports = new Map();
/** @type {Map<string, {light: (parts: Record<string, string>) => void, clear: () => void}>} */
export const diagrams = new Map();
/** @type {Map<string, {mark: () => void, choose: (name: string) => void, pick: (module: string) => void}>} */
export const cards = new Map();
/** @type {Map<string, {open: (step?: number) => void, leave: () => void}>} */
export const tours = new Map();

/** Listeners by name, each set ends with what `on` returns. */
export class Signal {
  constructor() {
    /** @type {Set<(value?: any) => void>} */
    this.handlers = new Set();
  }

  /** @param {(value?: any) => void} handler */
  on(handler) {
    this.handlers.add(handler);
    return () => {
      this.handlers.delete(handler);
    };
  }

  /** @param {any} [value] */
  send(value) {
    for (const handler of [...this.handlers]) handler(value);
  }
}

/**
 * Follows a component's value. Gradio swallows what a handler throws; here it reaches the window, where tests see it.
 * @param {any} props
 * @param {(name: string, handler: () => void) => void} watch
 * @param {(message: any) => void} handler
 */
export const follow = (props, watch, handler) => {
  const apply = () => {
    const message = props.value;
    if (!message || typeof message !== "object") return;
    try {
      handler(message);
    } catch (problem) {
      setTimeout(() => {
        throw problem;
      });
    }
  };
  watch("value", apply);
  apply(); // a message may come before this part is made
};
