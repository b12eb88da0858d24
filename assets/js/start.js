// The Start page: what this is, one button that trains a GPT, the map of all topics with what of them you have done.

import { button, face, make, svg } from "./dom.js";
import { done } from "./memory.js";
import { follow, forms, transports } from "./parts.js";
import { goTo } from "./tabs.js";

/** @typedef {{topic: string, title: string, question: string, experiments: string[], thumb: any[]}} Topic */

/** @param {any[]} shapes */
const thumb = (shapes) => {
  const picture = svg("svg", { viewBox: "0 0 120 50", "aria-hidden": "true", class: "viz-thumb" });
  for (const [tag, attributes, ink] of shapes) {
    const shape = svg(tag, attributes);
    shape.style.setProperty("--ink", `var(--viz-${ink})`);
    picture.appendChild(shape);
  }
  return picture;
};

/** Go to the first tab and train: the button of this page. */
const trainNow = () => {
  goTo("nanogpt");
  let left = 200;
  const run = () => {
    const transport = transports.get("nanogpt");
    if (transport && forms.get("nanogpt")?.ready()) {
      forms.get("nanogpt")?.choose("train");
      setTimeout(() => transport.state() === "idle" && transport.start("run"), 150);
    } else if (left--) setTimeout(run, 100);
  };
  run();
};

/**
 * @param {HTMLElement} element
 * @param {any} props
 * @param {any} watch
 * @param {(event: string) => void} trigger
 */
export const start = (element, props, watch, trigger) => {
  const root = /** @type {HTMLElement} */ (element.querySelector(".viz-start"));
  /** @type {[HTMLElement, Topic][]} */
  const marks = [];

  const mark = () => {
    const ran = done();
    for (const [node, topic] of marks) {
      const count = topic.experiments.filter((name) => (ran[topic.topic] ?? []).includes(name)).length;
      node.textContent = count ? `✓ ${count} of ${topic.experiments.length}` : "";
    }
  };
  const card = (/** @type {Topic} */ topic) => {
    const node = make("a", "viz-topic");
    node.href = "#tab=" + topic.topic;
    node.onclick = (event) => {
      event.preventDefault();
      goTo(topic.topic);
    };
    node.appendChild(thumb(topic.thumb));
    const head = node.appendChild(make("span", "viz-topic-head"));
    head.appendChild(make("strong", "", topic.title));
    marks.push([head.appendChild(make("span", "viz-topic-done")), topic]);
    node.appendChild(make("small", "", topic.question));
    return node;
  };
  const hero = (/** @type {any} */ message) => {
    const box = root.appendChild(make("section", "viz-hero"));
    const words = box.appendChild(make("div"));
    words.appendChild(make("h1", "", message.title));
    words.appendChild(make("p", "", message.text));
    const bar = words.appendChild(make("div", "viz-buttons"));
    const go = bar.appendChild(button("viz-button viz-run viz-go", "", trainNow));
    face(go, "play", "Train a GPT now, in half a minute");
    bar.appendChild(
      button("viz-button", "I teach a class", () => {
        const place = document.getElementById("start-teach");
        place?.scrollIntoView({ behavior: "smooth", block: "center" });
        place?.focus({ preventScroll: true });
      }),
    );
    const live = box.appendChild(make("figure", "viz-written"));
    live.appendChild(make("pre"));
    live.appendChild(make("figcaption"));
  };
  const build = (/** @type {any} */ message) => {
    hero(message);
    for (const chapter of message.chapters) {
      const part = root.appendChild(make("section", "viz-chapter"));
      part.appendChild(make("h2", "", chapter.title)).appendChild(make("small", "", chapter.says));
      const grid = part.appendChild(make("div", "viz-topics"));
      for (const topic of chapter.topics) grid.appendChild(card(topic));
    }
    const boxes = root.appendChild(make("div", "viz-boxes"));
    for (const [id, title, text] of message.boxes) {
      const box = boxes.appendChild(make("section", "viz-box"));
      box.id = "start-" + id;
      box.tabIndex = -1;
      box.appendChild(make("h3", "", title));
      box.appendChild(make("p", "", text));
    }
    mark();
    // coming back to this page shows what has been done meanwhile
    new IntersectionObserver((seen) => seen.some((s) => s.isIntersecting) && mark()).observe(root);
  };
  follow(props, watch, (message) => {
    if (message.chapters && !root.childElementCount) {
      build(message);
      if (!message.written) trigger("write");
    }
    for (const [tag, text] of [
      ["pre", message.written],
      ["figcaption", message.caption],
    ]) {
      const node = root.querySelector(".viz-written " + tag);
      if (node && text) node.textContent = text;
    }
  });
  // behind a link to a tab it waits until somebody looks
  const seen = new IntersectionObserver((places) => {
    if (!places.some((place) => place.isIntersecting)) return;
    seen.disconnect();
    trigger("mounted");
  });
  seen.observe(root);
};
