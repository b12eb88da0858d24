// An opened model (tests/golden/anatomy.json) in the browser's hands: its tensors, its map, and what a press does.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import "./page.js";
import { Camera } from "../../assets/js/anatomy/camera.js";
import { Model, origin } from "../../assets/js/anatomy/model.js";
import { World, between, holds } from "../../assets/js/anatomy/world.js";
import { Bin } from "../../assets/js/dom.js";
import { rowsOf } from "../../assets/js/anatomy/beside.js";
import { mount } from "../../assets/js/views/anatomy.js";

const { frames, wanted } = JSON.parse(readFileSync(new URL("../golden/anatomy.json", import.meta.url), "utf8"));
const opened = () => {
  const model = new Model();
  model.take(frames[0].map.give);
  return model;
};
/** @type {any} */ (globalThis).matchMedia = () => ({ matches: true }); // no flights

test("what follows from q, k and v is what Python computed", () => {
  const model = opened();
  wanted.forEach((/** @type {any} */ layer, /** @type {number} */ l) => {
    const rows = model.layer(l);
    for (const name of ["came", "middle", "left"])
      layer[name].forEach((/** @type {number[]} */ row, /** @type {number} */ r) =>
        row.forEach((value, c) => assert.ok(Math.abs(/** @type {any} */ (rows)[name].at(r, c) - value) < 2e-3, name)),
      );
    for (const name of ["scores", "shares", "mixed"])
      layer[name].forEach((/** @type {number[][]} */ head, /** @type {number} */ h) =>
        head.forEach((row, r) =>
          row.forEach((value, c) =>
            assert.ok(Math.abs(/** @type {any} */ (rows.heads[h])[name].at(r, c) - value) < 2e-3, `${name} ${h}`),
          ),
        ),
      );
  });
});

test("a number is told with the numbers it came from", () => {
  const model = opened();
  const at = (/** @type {string} */ name, /** @type {number} */ r, /** @type {number} */ c, head = 0) =>
    origin(model, { layer: 1, head, name }, r, c);
  const share = model.layer(1).heads[0].shares.at(4, 2);
  assert.match(at("shares", 4, 2).says, new RegExp(`${Math.round(100 * share)} % comes from “c”`));
  assert.deepEqual(at("shares", 4, 2).from, [{ name: "scores", row: 4 }]);
  assert.match(at("shares", 2, 4).says, /nobody sees the future/);
  assert.match(at("scores", 2, 4).says, /products\)\) \/ √4 = .*The mask will take it away/s);
  assert.deepEqual(at("mixed", 3, 1).from, [
    { name: "shares", row: 3 },
    { name: "v", column: 1 },
  ]);
  const { came, attended, middle } = model.layer(1);
  const [a, b, sum] = [came, attended, middle].map((rows) => rows.at(2, 5));
  assert.ok(Math.abs(a + b - sum) < 1e-9);
  assert.match(at("middle", 2, 5, -1).says, / \+ .* = /);
  for (const name of ["came", "q", "k", "v", "attended", "hidden", "thought", "left"])
    assert.ok(at(name, 1, 1).says.endsWith(".") || name === "came", name);
});

test("the map holds every matrix once, inside its layer, beside the others", () => {
  for (const narrow of [false, true]) {
    const world = new World(opened(), narrow);
    assert.deepEqual(
      world.boxes.map((box) => box.title),
      ["text", "layer 1", "layer 2", "next token"],
    );
    for (const box of world.boxes) {
      world.fill(box);
      for (const m of box.matrices) {
        assert.ok(holds(box, m.x, m.y) && holds(box, m.x + m.w - 1, m.y + m.h - 1), `${m.name} lies in its box`);
        const middle = world.at(m.x + m.w / 2, m.y + m.h / 2);
        assert.equal(middle.matrix, m, `${m.name} is covered by nothing`);
      }
    }
    assert.equal(world.boxes[1].matrices.length, 6 + 2 * 6);
    for (const { map } of frames) {
      const rect = world.rect(map.place, map.layer, map.head);
      assert.ok(rect.w > 0 && rect.h > 0 && rect.w <= world.w, map.place);
    }
    assert.equal(world.thumbs(world.boxes[1]).length, 3);
  }
});

test("a flight begins and ends where it should, and only comes closer", () => {
  const [a, b] = [
    { x: 0, y: 0, w: 100, h: 80 },
    { x: 60, y: 50, w: 10, h: 8 },
  ];
  assert.deepEqual(between(a, b, 0), a);
  assert.deepEqual(between(a, b, 1), b);
  const widths = [0.2, 0.4, 0.6, 0.8].map((t) => between(a, b, t).w);
  assert.ok(widths.every((w, i) => w < (i ? widths[i - 1] : a.w)));
  const same = between(a, { ...a, x: 40 }, 0.5);
  assert.ok(Math.abs(same.x - 20) < 1e-9);
});

test("zooming keeps the point under the pointer and has its limits", () => {
  const canvas = document.body.appendChild(document.createElement("canvas"));
  let byHand = 0;
  const camera = new Camera(canvas, new Bin(), () => {}, () => byHand++); // prettier-ignore
  camera.widest = 1000;
  camera.rect = { x: 0, y: 0, w: 1000, h: 500 };
  camera.zoom(2, [0.25, 0.5]);
  assert.deepEqual(camera.rect, { x: 125, y: 125, w: 500, h: 250 });
  for (let i = 0; i < 40; i++) camera.zoom(2);
  assert.equal(Math.round(camera.rect.w), 20);
  for (let i = 0; i < 40; i++) camera.zoom(0.5);
  assert.equal(Math.round(camera.rect.w), 1200);
  assert.equal(byHand, 81);
});

test("buttons open layers and heads, and knock them out", () => {
  const place = document.body.appendChild(document.createElement("div"));
  const view = mount(place, { id: "map", hint: "Click." });
  view.grown?.(frames);
  view.show?.(frames, 0, 0);
  const press = (/** @type {string} */ name) => {
    const found = [...place.querySelectorAll("button")].find((b) => b.textContent === name);
    assert.ok(found, `there is a button ${name}`);
    found.click();
  };
  const side = () => place.querySelector(".viz-anatomy-side")?.textContent ?? "";
  assert.match(side(), /Nothing is knocked out/);
  press("Layer 2");
  press("Head 1");
  assert.match(place.querySelector("[aria-pressed=true] ~ * [aria-pressed=true]")?.textContent ?? "Head 1", /Head 1/);
  press("Knock out");
  press("Head 1");
  const without = opened().without(1, "0");
  assert.match(side(), new RegExp(`Without head 1 of layer 2 the likeliest is “${without.best}”`));
  press("Layer 2");
  assert.match(side(), /Without layer 2 the likeliest/);
  press("Layer 2");
  assert.match(side(), /Nothing is knocked out/);
  press("Layer 1"); // one press opens it and knocks it out
  assert.match(side(), /Without layer 1 the likeliest/);
  press("MLP");
  assert.match(side(), /Without the MLP of layer 1/);
  view.clear?.();
  view.destroy();
});

test("what becomes likeliest without a part has a row of its own", () => {
  const told = { candidates: ["a", "b", "c", "d", "e"].map((token, at) => [token, 0.5 / (at + 1)]) };
  const model = /** @type {any} */ ({ told });
  const p = [0.1, 0.1, 0.1, 0.1, 0.3];
  const tokens = (/** @type {any} */ gone) => rowsOf(model, gone).map(([token, , now]) => [token, now]);
  assert.deepEqual(tokens(null).at(-1), ["d", 0.125]);
  assert.deepEqual(tokens({ p, best: "b", best_p: 0.1 }).at(-1), ["d", 0.1]);
  assert.deepEqual(tokens({ p, best: "e", best_p: 0.3 }).at(-1), ["e", 0.3]);
  const beyond = rowsOf(model, { p, best: "z", best_p: 0.4, best_before: 0.02 });
  assert.deepEqual([beyond.length, ...beyond.slice(-1)], [4, ["z", 0.02, 0.4]]);
});

test("the arrow keys read numbers, and Escape goes back out", () => {
  const place = document.body.appendChild(document.createElement("div"));
  const view = mount(place, { id: "map", hint: "Click." });
  view.grown?.(frames);
  view.show?.(frames, 0, 0);
  const canvas = /** @type {HTMLCanvasElement} */ (place.querySelector("canvas"));
  const note = () => place.querySelector(".viz-note")?.textContent ?? "";
  const key = (/** @type {string} */ name) =>
    canvas.dispatchEvent(new window.KeyboardEvent("keydown", { key: name, bubbles: true, cancelable: true }));
  key("ArrowLeft");
  assert.match(note(), /^Click\. Two fingers zoom\.$/); // nothing is open
  const stop = frames.findIndex((/** @type {any} */ f) => f.map.place === "shares");
  view.show?.(frames, stop, 0);
  key("ArrowLeft");
  assert.match(note(), /of what “b” \(token 5\) takes in, 26 % comes from “a” \(token 4\)/);
  key("ArrowUp");
  assert.match(note(), /“a”/);
  key("Escape");
  key("Escape");
  assert.match(note(), /^Click\. Two fingers zoom\.$/);
  view.destroy();
});
