/* The frame of a tab in the browser: Run, Step, Stop, Reset and their states; predictions; tabs, links, presenter mode. */
(() => {
  "use strict";
  const Viz = window.Viz, make = Viz.make, transports = (Viz.transports = new Map()), forms = (Viz.forms = new Map());

  // The controls of a tab, made from the settings that the topic's Config declares; the server checks every value.
  Viz.form = (element, props, watch, trigger) => {
    const root = element.querySelector(".viz-form"), topic = root.dataset.topic;
    let spec = null, chosen = null, wanted = null;
    const fields = new Map(); // "experiment.field" -> {field, row, get, set}
    const read = () => {
      const values = {};
      for (const [key, f] of fields) if (key.startsWith(chosen + ".") && f.get) values[f.field.name] = f.get();
      return { experiment: chosen, values };
    };
    const refresh = () => { // what depends on another setting shows when it matters
      for (const [key, f] of fields) {
        const [experiment] = key.split("."), when = f.field.when;
        const matters = experiment === chosen && (!when || String(fields.get(`${experiment}.${when[0]}`).get()) === when[1]);
        f.row.hidden = !matters;
        if (f.field.file) document.getElementById(f.field.file)?.classList.toggle("viz-away", !matters);
      }
      for (const group of root.querySelectorAll(".viz-fields")) group.hidden = group.dataset.experiment !== chosen;
    };
    const choose = (name, quiet) => {
      if (chosen && chosen !== name) transports.get(topic)?.stop();
      chosen = name;
      for (const b of root.querySelectorAll("[role=radio]")) { b.setAttribute("aria-checked", b.dataset.name === name); b.tabIndex = b.dataset.name === name ? 0 : -1; }
      const question = document.querySelector(`.viz-question[data-topic="${topic}"]`);
      if (question) question.textContent = spec.find((e) => e.name === name).question;
      refresh();
      if (!quiet) { transports.get(topic)?.ready(); transports.get(topic)?.preview(); }
    };
    const row = (place, field) => {
      const box = place.appendChild(make("div", "viz-field")), id = `${topic}-${place.closest(".viz-fields").dataset.experiment}-${field.name}-in`;
      if (field.file) { box.appendChild(make("span", "")); return { field, row: box }; }
      const label = box.appendChild(make("label", "", field.label + (field.unit && !field.label.toLowerCase().includes(field.unit) ? ` (${field.units})` : "")));
      label.htmlFor = id;
      let input, twin = null;
      if (field.choices) {
        input = make("select");
        for (const [value, words] of field.choices) { const o = input.appendChild(make("option", "", words)); o.value = value; }
      } else if (field.kind === "str") { input = make("textarea"); input.rows = 3; }
      else { input = make("input"); input.type = field.kind === "bool" ? "checkbox" : "number"; input.step = "any"; }
      input.id = id; input.name = field.name;
      const line = box.appendChild(make("div", "viz-line"));
      if (field.dial) {
        twin = line.appendChild(make("input"));
        Object.assign(twin, { type: "range", min: field.low, max: field.high, step: field.kind === "int" ? 1 : 0.05 });
        twin.setAttribute("aria-label", field.label + ", slider");
        twin.oninput = () => { input.value = twin.value; refresh(); };
      }
      line.appendChild(input);
      input.addEventListener("input", () => { if (twin) twin.value = input.value; refresh(); });
      if (field.help) { const help = box.appendChild(make("small", "", field.help)); help.id = id + "-help"; input.setAttribute("aria-describedby", help.id); }
      const set = (value) => { if (input.type === "checkbox") input.checked = !!value; else input.value = value; if (twin) twin.value = value; };
      const get = () => (input.type === "checkbox" ? input.checked : input.type === "number" ? (input.value === "" ? null : +input.value) : input.value);
      set(field.default);
      return { field, row: box, get, set };
    };
    const build = () => {
      root.textContent = ""; fields.clear();
      const pick = root.appendChild(make("div", "viz-choose"));
      pick.setAttribute("role", "radiogroup"); pick.setAttribute("aria-label", "Experiment");
      for (const e of spec) {
        const b = pick.appendChild(make("button", "viz-button", e.name.replaceAll("_", " ")));
        b.type = "button"; b.dataset.name = e.name; b.setAttribute("role", "radio");
        b.onclick = () => choose(e.name);
        b.onkeydown = (event) => {
          const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
          if (!by) return;
          event.preventDefault();
          const all = [...pick.children], next = all[(all.indexOf(b) + by + all.length) % all.length];
          next.focus(); choose(next.dataset.name);
        };
      }
      for (const e of spec) {
        const group = root.appendChild(make("div", "viz-fields"));
        group.dataset.experiment = e.name;
        let more = null;
        for (const field of [...e.fields.filter((f) => !f.more), ...e.fields.filter((f) => f.more)]) {
          if (field.more && !more) { more = group.appendChild(make("details", "viz-more")); more.appendChild(make("summary", "", "More")); }
          fields.set(`${e.name}.${field.name}`, row(field.more ? more : group, field));
        }
        const back = (more || group).appendChild(make("button", "viz-button", "Back to the defaults"));
        back.type = "button"; back.onclick = () => { for (const [key, f] of fields) if (key.startsWith(e.name + ".") && f.set) f.set(f.field.default); refresh(); };
      }
      choose(spec[0].name, true);
    };
    const set = (experiment, values, defaults) => {
      if (!spec) return (wanted = [experiment, values, defaults]);
      for (const [key, f] of fields) {
        if (!key.startsWith(experiment + ".") || !f.set) continue;
        if (f.field.name in values) { f.set(values[f.field.name]); if (f.field.more) f.row.closest("details").open = true; }
        else if (defaults) f.set(f.field.default);
      }
      choose(experiment, true);
    };
    const one = (name) => fields.get(`${chosen}.${name}`);
    const put = (name, value) => { // in every experiment that has it
      for (const [key, f] of fields) if (f.set && key.endsWith("." + name)) f.set(value);
      refresh();
      root.dispatchEvent(new Event("change", { bubbles: true }));
    };
    forms.set(topic, { read, set, put, get: (name) => one(name)?.get(), ready: () => !!spec });
    const apply = () => {
      const message = props.value;
      if (!message) return;
      if (message.spec && !spec) {
        spec = message.spec; build(); transports.get(topic)?.formed();
        if (wanted) { set(...wanted); transports.get(topic)?.preview(); }
      }
    };
    watch("value", apply);
    apply();
  };

  // What the page's address asks for: settings of one tab, or a sentence about what is wrong with it.
  Viz.link = (element, props, watch) => {
    const apply = () => {
      const asked = props.value;
      if (!asked || !asked.topic) return;
      const form = forms.get(asked.topic), transport = transports.get(asked.topic);
      if (!form || !transport) return setTimeout(apply, 50); // its tab is not made yet
      if (asked.experiment) { const waits = !form.ready(); form.set(asked.experiment, asked.values); if (!waits) transport.preview(); }
      if (asked.problem) transport.words(asked.problem);
    };
    watch("value", apply);
    apply();
  };

  // States: idle -> queued -> running <-> paused -> idle. The server's word (a message) always wins.
  Viz.transport = (element, props, watch, trigger, server) => {
    const root = element.querySelector(".viz-transport"), topic = root.dataset.topic, bar = root.appendChild(make("div", "viz-buttons"));
    const status = root.appendChild(make("p", "viz-status"));
    status.setAttribute("role", "status"); status.setAttribute("aria-live", "polite");
    let state = "idle", run = null, asked = 0, later = 0, resets = 0;
    const set = (next, words, bad) => {
      state = root.dataset.state = next;
      if (words !== undefined) { status.textContent = status.title = words; status.classList.toggle("viz-bad", !!bad); }
      const early = !forms.get(topic)?.ready(); // there are no settings to run with yet
      buttons.run.disabled = early || state === "queued" || state === "running";
      Viz.face(buttons.run, "play", state === "paused" ? "Go on" : "Run");
      buttons.step.disabled = early || state === "queued";
      buttons.stop.disabled = state === "idle";
      buttons.reset.disabled = early;
    };
    const say = (event, more) => { // every message to the server carries the form as it is now
      props.value = { ...forms.get(topic).read(), ...more, asked: ++asked };
      trigger(event);
    };
    // Gradio knows the place in the queue and writes it into a tracker of its own; here it is said in words.
    const tellPlace = () => {
      if (state !== "queued" || !root.isConnected) return;
      const place = /queue: (\d+)\/(\d+)/.exec(element.closest(".block")?.querySelector(".progress-text")?.textContent || "");
      if (place) set("queued", `Waiting: you are number ${place[1]} of ${place[2]} in the queue.`);
      setTimeout(tellPlace, 500);
    };
    const start = (mode, guess) => { run = null; resets++; set("queued", "waiting for a place …"); say("start", { mode, guess: guess || null }); setTimeout(tellPlace, 300); };
    const signal = (action) => server.signal({ run, action });
    const acts = {
      run: () => (state === "paused" ? (set("running"), signal("go")) : start("run")),
      step: () => (state === "idle" ? start("step") : (set("paused"), signal("step"))),
      stop: () => {
        if (!run) { set("idle", "stopped while waiting"); return trigger("cancel"); }
        signal("stop");
        const stopped = run;
        setTimeout(() => { if (run === stopped && state !== "idle") { set("idle", "stopped"); trigger("cancel"); } }, 5000);
      },
      reset: () => {
        clearTimeout(later);
        if (state !== "idle") acts.stop();
        const mine = ++resets; // a run that starts meanwhile takes its place
        const wait = (left) => mine === resets && (state === "idle" || !left ? say("reset", {}) : setTimeout(() => wait(left - 1), 100));
        wait(60);
      },
    };
    const buttons = {};
    for (const [name, shape, text, hint] of [["run", "play", "Run", "Run the experiment"], ["step", "on", "Step", "One step, then pause"], ["stop", "stop", "Stop", "Stop the run; what was computed stays"], ["reset", "reset", "Reset", "Back to the same start"]]) {
      const b = (buttons[name] = bar.appendChild(make("button", "viz-button viz-" + name)));
      Viz.face(b, shape, text);
      b.type = "button"; b.title = hint; b.onclick = () => { clearTimeout(later); acts[name](); };
    }
    set("idle", props.limit);
    const again = () => { // a picture that can be clicked runs anew: what is on ends first
      clearTimeout(later);
      later = setTimeout(() => (state === "idle" ? start("run") : (run && acts.stop(), again())), 200);
    };
    transports.set(topic, { start, again, reset: acts.reset, stop: () => state !== "idle" && acts.stop(), words: (problem) => set(state, problem, true), ready: () => state === "idle" && set("idle", props.limit), formed: () => set(state), preview: () => say("preview", {}), take: () => say("take", {}) });
    const apply = () => {
      const message = props.value;
      if (!message || message.asked) return;
      if (message.run !== undefined) run = message.run;
      set(message.state || state, message.status, message.bad);
    };
    watch("value", apply);
    apply(); // a message may come before this part is made
  };

  // Try this: pick an answer, the settings are made and the run starts; its figures decide.
  Viz.predictions = (element, props, watch) => {
    const root = element.querySelector(".viz-predictions"), topic = root.dataset.topic, verdicts = [];
    const build = (questions) => questions.forEach((q, i) => {
      const group = root.appendChild(make("fieldset"));
      group.appendChild(make("legend", "", q.question));
      q.answers.forEach((answer, j) => {
        const b = group.appendChild(make("button", "viz-button", answer));
        b.type = "button";
        b.onclick = () => {
          group.querySelectorAll("button").forEach((other) => { other.classList.remove("viz-right", "viz-wrong"); other.setAttribute("aria-pressed", other === b); });
          verdicts[i].textContent = "Running; the figures will decide …";
          forms.get(topic).set(q.experiment, q.settings, true);
          transports.get(topic).start("run", { question: i, answer: j });
        };
      });
      const verdict = group.appendChild(make("p", "viz-verdict"));
      verdict.setAttribute("aria-live", "polite");
      verdicts.push(verdict);
    });
    const apply = () => {
      const v = props.value;
      if (v && v.questions && !verdicts.length) build(v.questions);
      if (!v || !v.because) return;
      const buttons = root.querySelectorAll("fieldset")[v.question].querySelectorAll("button");
      if (v.right !== null) buttons[v.right].classList.add("viz-right");
      if (v.right !== null && v.answer !== v.right) buttons[v.answer].classList.add("viz-wrong");
      verdicts[v.question].textContent = (v.right === null ? "" : v.answer === v.right ? "Right. " : `It was “${buttons[v.right].textContent}”. `) + v.because;
    };
    watch("value", apply);
    apply(); // a folded part is made when it is opened, maybe after its value came
  };

  // Python, command and link for the settings as they are now.
  Viz.take = (element, props, watch) => {
    const root = element.querySelector(".viz-take"), topic = root.dataset.topic, places = {};
    for (const [name, label] of [["python", "Copy as Python"], ["command", "In a terminal"], ["link", "Link to this"]]) {
      const box = root.appendChild(make("div", "viz-copy"));
      box.appendChild(make("strong", "", label));
      const copy = box.appendChild(make("button", "viz-button", "Copy"));
      copy.type = "button"; copy.setAttribute("aria-label", label + ": copy");
      places[name] = box.appendChild(make("pre", "viz-text"));
      places[name].tabIndex = 0;
      copy.onclick = async () => { await navigator.clipboard.writeText(places[name].textContent); copy.textContent = "Copied"; setTimeout(() => (copy.textContent = "Copy"), 1500); };
    }
    const ask = () => forms.get(topic)?.ready() && transports.get(topic)?.take();
    new IntersectionObserver((seen) => seen.some((s) => s.isIntersecting) && ask()).observe(root);
    document.getElementById(topic + "-form")?.addEventListener("change", () => root.offsetParent && ask());
    const apply = () => { for (const name in places) if (props.value && name in props.value) places[name].textContent = props.value[name]; };
    watch("value", apply);
    apply();
  };

  // --- tabs and links: #tab=nanogpt in the address, ?tab=...&run=...&field=value accepted on load ---
  const wanted = () => new URLSearchParams(location.hash.slice(1)).get("tab") || new URLSearchParams(location.search).get("tab");
  Viz.tabs = (map) => {
    Viz.chapters = map; // [[chapter id, [tab ids]], ...]
    const tab = wanted(), chapter = map.find(([, tabs]) => tabs.includes(tab));
    const keep = { __type__: "update" };
    return [chapter ? { ...keep, selected: chapter[0] } : keep, ...map.map(([id, tabs]) => (chapter && id === chapter[0] ? { ...keep, selected: tab } : keep))];
  };
  addEventListener("click", (event) => { // only a person's click writes the address, and only its hash
    const button = event.isTrusted && event.target.closest && event.target.closest('button[role="tab"]');
    if (!button || !Viz.chapters) return;
    const id = button.id.replace(/-button$/, ""), chapter = Viz.chapters.find(([c]) => c === id);
    const tab = chapter ? chapter[1][0] : id;
    if (Viz.chapters.some(([, tabs]) => tabs.includes(tab))) history.replaceState(null, "", "#tab=" + tab);
  }, true);
  addEventListener("hashchange", () => {
    const tab = wanted(), chapter = (Viz.chapters || []).find(([, tabs]) => tabs.includes(tab));
    if (!chapter) return;
    document.getElementById(chapter[0] + "-button")?.click();
    setTimeout(() => document.getElementById(tab + "-button")?.click(), 150);
  });
  addEventListener("keydown", (event) => {
    if (event.altKey && event.key.toLowerCase() === "p") { event.preventDefault(); present(!document.body.classList.contains("presenter")); }
    const tab = event.target.closest && event.target.closest('button[role="tab"]');
    if (tab && (event.key === "ArrowRight" || event.key === "ArrowLeft")) {
      const tabs = [...tab.parentElement.querySelectorAll('button[role="tab"]')], next = tabs[(tabs.indexOf(tab) + (event.key === "ArrowRight" ? 1 : -1) + tabs.length) % tabs.length];
      next.focus(); next.click();
    }
  });

  // The code view scrolls, so the keyboard must be able to reach it.
  new MutationObserver(() => document.querySelectorAll('.cm-scroller[tabindex="-1"]').forEach((view) => (view.tabIndex = 0))).observe(document.documentElement, { childList: true, subtree: true });

  // --- presenter mode: large text for a projector, Alt+P or ?present=1, remembered ---
  const present = (on) => { document.body.classList.toggle("presenter", on); try { localStorage.setItem("presenter", on ? "1" : ""); } catch (e) { /* private browsing keeps nothing */ } };
  Viz.present = present;
  const begin = () => {
    let stored = "";
    try { stored = localStorage.getItem("presenter"); } catch (e) { stored = ""; }
    const asked = new URLSearchParams(location.search).get("present");
    if (asked === "1" || (asked === null && stored)) present(true);
  };
  document.body ? begin() : addEventListener("DOMContentLoaded", begin);
})();
