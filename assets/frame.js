/* The frame of a tab in the browser: Run, Step, Stop, Reset and their states; predictions; tabs, links, presenter mode. */
(() => {
  "use strict";
  const Viz = window.Viz, make = Viz.make, transports = new Map();

  // States: idle -> queued -> running <-> paused -> idle. The server's word (a message) always wins.
  Viz.transport = (element, props, watch, trigger, server) => {
    const root = element.querySelector(".viz-transport"), bar = root.appendChild(make("div", "viz-buttons"));
    const status = root.appendChild(make("p", "viz-status"));
    status.setAttribute("role", "status"); status.setAttribute("aria-live", "polite");
    let state = "idle", run = null, asked = 0;
    const set = (next, words, bad) => {
      state = root.dataset.state = next;
      if (words !== undefined) { status.textContent = words; status.classList.toggle("viz-bad", !!bad); }
      buttons.run.disabled = state === "queued" || state === "running";
      buttons.run.textContent = state === "paused" ? "▶ Go on" : "▶ Run";
      buttons.step.disabled = state === "queued";
      buttons.stop.disabled = state === "idle";
    };
    const start = (mode) => {
      set("queued", "waiting for a place …");
      props.value = { mode, asked: ++asked };
      trigger("start");
    };
    const signal = (action) => server.signal({ run, action });
    const acts = {
      run: () => (state === "paused" ? (set("running"), signal("go")) : start("run")),
      step: () => (state === "idle" ? start("step") : (set("paused"), signal("step"))),
      stop: () => {
        if (state === "queued" || !run) { set("idle", "stopped while waiting"); return trigger("cancel"); }
        signal("stop");
        const stopped = run;
        setTimeout(() => { if (run === stopped && state !== "idle") { set("idle", "stopped"); trigger("cancel"); } }, 5000);
      },
      reset: () => { if (state !== "idle" && run) signal("stop"); trigger("reset"); },
    };
    const buttons = {};
    for (const [name, text, hint] of [["run", "▶ Run", "Run the experiment"], ["step", "⏭ Step", "One step, then pause"], ["stop", "■ Stop", "Stop the run; what was computed stays"], ["reset", "↺ Reset", "Back to the same start"]]) {
      const b = (buttons[name] = bar.appendChild(make("button", "viz-button viz-" + name, text)));
      b.type = "button"; b.title = hint; b.onclick = acts[name];
    }
    set("idle", "");
    transports.set(root.dataset.topic, { queued: () => set("queued", "waiting for a place …"), stop: () => state !== "idle" && acts.stop(), words: (words) => set(state, words) });
    watch("value", () => {
      const message = props.value;
      if (!message || message.asked) return;
      if (message.run !== undefined) run = message.run;
      set(message.state || state, message.status, message.bad);
    });
  };

  // Try this: pick an answer, the settings are made and the run starts; its figures decide.
  Viz.predictions = (element, props, watch, trigger) => {
    const root = element.querySelector(".viz-predictions"), verdicts = [];
    props.questions.forEach((q, i) => {
      const group = root.appendChild(make("fieldset"));
      group.appendChild(make("legend", "", q.question));
      q.answers.forEach((answer, j) => {
        const b = group.appendChild(make("button", "viz-button", answer));
        b.type = "button";
        b.onclick = () => {
          group.querySelectorAll("button").forEach((other) => { other.classList.remove("viz-right", "viz-wrong"); other.setAttribute("aria-pressed", other === b); });
          verdicts[i].textContent = "Running …";
          transports.get(root.dataset.topic)?.queued();
          props.value = { question: i, answer: j, asked: Date.now() };
          trigger("predict");
        };
      });
      const verdict = group.appendChild(make("p", "viz-verdict"));
      verdict.setAttribute("aria-live", "polite");
      verdicts.push(verdict);
    });
    watch("value", () => {
      const v = props.value;
      if (!v || !v.because) return;
      const buttons = root.querySelectorAll("fieldset")[v.question].querySelectorAll("button");
      if (v.right !== null) buttons[v.right].classList.add("viz-right");
      if (v.right !== null && v.answer !== v.right) buttons[v.answer].classList.add("viz-wrong");
      verdicts[v.question].textContent = (v.right === null ? "" : v.answer === v.right ? "Right. " : `It was “${buttons[v.right].textContent}”. `) + v.because;
    });
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
