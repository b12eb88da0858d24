// Run, Step, Stop, Reset and the status line. States: idle -> queued -> running <-> paused -> idle. The server's word always wins.

import { button, face, make } from "./dom.js";
import { follow, forms, Signal, transports } from "./parts.js";

/** @type {[string, string, string, string][]} */
const BUTTONS = [
  ["run", "play", "Run", "Run the experiment"],
  ["step", "on", "Step", "One step, then pause"],
  ["stop", "stop", "Stop", "Stop the run; what was computed stays"],
  ["reset", "reset", "Reset", "Back to the same start"],
];

/**
 * @param {HTMLElement} element
 * @param {any} props
 * @param {any} watch
 * @param {(event: string) => void} trigger
 * @param {any} server
 */
export const transport = (element, props, watch, trigger, server) => {
  const root = /** @type {HTMLElement} */ (element.querySelector(".viz-transport"));
  const topic = root.dataset.topic ?? "";
  const bar = root.appendChild(make("div", "viz-buttons"));
  const changes = new Signal();
  const status = root.appendChild(make("p", "viz-status"));
  status.setAttribute("role", "status");
  status.setAttribute("aria-live", "polite");
  let state = "idle";
  /** @type {string | null} */
  let run = null;
  /** The run that has ended last: Gradio delivers its last message twice. @type {string | null} */
  let over = null;
  let asked = 0;
  /** The number of the start that was given up before its run had a name. */
  let refused = 0;
  /** The number of the last start. */
  let started = 0;
  /** What comes when the run that is on has ended. @type {(() => void) | null} */
  let next = null;
  /** @type {any} */
  let later = 0;

  const set = (/** @type {string} */ next, /** @type {string} */ words = "", bad = false) => {
    const before = state;
    state = root.dataset.state = next;
    if (words) {
      status.textContent = status.title = words;
      status.classList.toggle("viz-bad", bad);
    }
    const early = !forms.get(topic)?.ready(); // there are no settings to run with yet
    buttons.run.disabled = early || state === "queued" || state === "running";
    face(buttons.run, "play", state === "paused" ? "Go on" : "Run");
    buttons.step.disabled = early || state === "queued";
    buttons.stop.disabled = state === "idle";
    buttons.reset.disabled = early;
    if (before !== state) changes.send(state);
  };
  // every message to the server carries the form as it is now
  const say = (/** @type {string} */ event, more = {}) => {
    props.value = { ...forms.get(topic)?.read(), ...more, asked: ++asked };
    trigger(event);
  };
  // Gradio knows the place in the queue and writes it into a tracker of its own; here it is said in words.
  const tellPlace = () => {
    if (state !== "queued" || !root.isConnected) return;
    const tracker = element.closest(".block")?.querySelector(".progress-text")?.textContent || "";
    const place = /queue: (\d+)\/(\d+)/.exec(tracker);
    if (place) set("queued", `Waiting: you are number ${place[1]} of ${place[2]} in the queue.`);
    setTimeout(tellPlace, 500);
  };
  const signal = (/** @type {string} */ action) => server.signal({ run, action });
  const ended = (words = "", bad = false) => {
    const act = next;
    [over, run, next] = [run ?? over, null, null];
    if (act) act();
    else set("idle", words, bad);
  };
  // A person has one run in a tab: the one that is on is stopped, and what was asked for comes when it has ended.
  const alone = (/** @type {() => void} */ act) => {
    clearTimeout(later);
    if (state === "idle") return act();
    const waited = !run;
    acts.stop();
    if (waited)
      later = setTimeout(act, 200); // Gradio takes it out of the queue first
    else {
      next = act;
      set("queued", "the run before ends first …");
    }
  };
  const start = (/** @type {string} */ mode, /** @type {object | null} */ guess = null) =>
    alone(() => {
      set("queued", "waiting for a place …");
      say("start", { mode, guess });
      started = asked;
      setTimeout(tellPlace, 300);
    });

  /** @type {Record<string, () => void>} */
  const acts = {
    run: () => {
      if (state !== "paused") return start("run");
      set("running");
      signal("go");
    },
    step: () => {
      if (state === "idle") return start("step");
      set("paused");
      signal("step");
    },
    stop: () => {
      next = null;
      if (!run) {
        set("idle", "stopped while waiting");
        refused = started; // Gradio cannot cancel what it has not answered yet: then it ends with its first word
        return trigger("cancel");
      }
      signal("stop");
      const stopped = run;
      setTimeout(() => {
        if (run !== stopped) return;
        trigger("cancel");
        ended("stopped");
      }, 5000);
    },
    reset: () =>
      alone(() => {
        set("idle");
        say("reset");
      }),
  };
  /** @type {Record<string, HTMLButtonElement>} */
  const buttons = {};
  for (const [name, icon, text, hint] of BUTTONS) {
    const act = () => {
      clearTimeout(later);
      acts[name]();
    };
    buttons[name] = bar.appendChild(button("viz-button viz-" + name, "", act));
    face(buttons[name], icon, text);
    buttons[name].title = hint;
  }
  const settings = bar.appendChild(button("viz-button viz-settings", "Settings", () => toggleSettings())); // on a phone
  settings.setAttribute("aria-expanded", "false");
  const toggleSettings = () => {
    const open = element.closest(".viz-stage")?.classList.toggle("viz-settings-open") ?? false;
    settings.setAttribute("aria-expanded", String(open));
  };
  set("idle", props.limit);

  const again = () => {
    clearTimeout(later);
    later = setTimeout(() => start("run"), 200);
  };
  transports.set(topic, {
    start,
    again,
    reset: acts.reset,
    stop: () => {
      clearTimeout(later); // a run that was about to start does not
      if (state !== "idle") acts.stop();
    },
    words: (words, bad = false) => set(state, words, bad),
    ready: () => state === "idle" && set("idle", props.limit),
    formed: () => set(state),
    preview: () => say("preview"),
    take: () => say("take"),
    state: () => state,
    onState: (handler) => changes.on(handler),
  });
  follow(props, watch, (message) => {
    if (message.asked || (message.run && message.run === over)) return;
    if (message.start && message.start === refused) {
      if (message.run) server.signal({ run: message.run, action: "stop" });
      over = message.run ?? over;
      return;
    }
    if (message.state === "idle") return ended(message.status, !!message.bad);
    if (next) return; // the last words of a run that was stopped
    run = message.run ?? run;
    set(message.state || state, message.status, !!message.bad);
  });
};
