// The pure functions of the browser's side.

import assert from "node:assert/strict";
import test from "node:test";

import "./page.js";
import { Bin, short, visible } from "../../assets/js/dom.js";
import { besideOf, gapOf } from "../../assets/js/figures.js";
import { setGlossary, termOf, termsIn } from "../../assets/js/glossary.js";
import { Signal } from "../../assets/js/parts.js";
import { wantedTab } from "../../assets/js/tabs.js";
import { niceTicks, padded } from "../../assets/js/ticks.js";
import { cellsOf, written } from "../../assets/js/views/brush.js";
import { apart, boundsOf, nearest } from "../../assets/js/views/lines.js";
import { mixed } from "../../assets/js/views/matrix.js";
import { legendLines, plain } from "../../assets/js/views/plot.js";

test("ticks are round numbers inside the range", () => {
  assert.deepEqual(niceTicks(0, 10, 5), [0, 2, 4, 6, 8, 10]);
  assert.deepEqual(niceTicks(1.6, 4.1, 5), [2, 2.5, 3, 3.5, 4]);
  assert.deepEqual(niceTicks(-1, 1, 4), [-1, -0.5, 0, 0.5, 1]);
});

test("labels keep apart, in order, near where they belong and above the bottom", () => {
  assert.deepEqual(apart([10, 50, 90], 15, 100), [10, 50, 90]);
  assert.deepEqual(apart([10, 12, 60], 15, 100), [10, 25, 60]);
  assert.deepEqual(apart([95, 97, 99], 15, 100), [70, 85, 100]);
  assert.deepEqual(apart([], 15, 100), []);
});

test("a range that differs in the last bit only has one tick and ends", () => {
  // both froze the page: a step smaller than the numbers can tell apart is never added
  assert.deepEqual(niceTicks(3.2, 3.2000000000000006, 5), [3.2]);
  assert.deepEqual(niceTicks(1e16, 1e16 + 2, 5), [1e16]);
  assert.deepEqual(niceTicks(5, 5, 5), [5]);
  assert.deepEqual(niceTicks(NaN, NaN, 5), []);
  assert.ok(niceTicks(0, Infinity, 5).length < 20);
});

test("any range has few ticks, in order, within the range", () => {
  let seed = 1;
  const random = () => (seed = (seed * 48271) % 2147483647) / 2147483647;
  for (let k = 0; k < 3000; k++) {
    const low = (random() - 0.5) * 10 ** (random() * 40 - 20);
    const high = low + Math.abs(low) * 10 ** (random() * 30 - 18);
    const ticks = niceTicks(low, high, 6);
    assert.ok(ticks.length <= 14, `${low} ${high}: ${ticks.length}`);
    for (let i = 1; i < ticks.length; i++) assert.ok(ticks[i] > ticks[i - 1]);
  }
});

test("an axis has room around its values, even where all are the same", () => {
  assert.deepEqual(padded(0, 100), [-6, 106]);
  const [low, high] = padded(3.2, 3.2000000000000006);
  assert.ok(low < 3.1 && high > 3.3);
  assert.deepEqual(padded(0, 0), [-0.5, 0.5]);
  assert.deepEqual(padded(Infinity, -Infinity), [0, 1]);
});

test("numbers are short", () => {
  assert.deepEqual(
    [0, 4.0943445, 12345.6, 1e-9, null, NaN].map((v) => short(v)),
    ["0", "4.094", "12,346", "1.0e-9", "–", "–"],
  );
  assert.equal(visible("\n") + visible(" ") + visible("a"), "↵␣a");
});

const figure = { name: "loss", unit: "nats", label: "measured", source: "", headline: true };

test("only a theory and a paper have a gap, and each kind is worded its own way", () => {
  const of = (/** @type {any} */ more) => /** @type {any} */ ({ ...figure, ...more });
  assert.equal(gapOf(of({ against: "theory", predicted: 2, measured: 2.5, gap: 0.5 })), "gap +25 %");
  assert.equal(gapOf(of({ against: "paper", predicted: 2, measured: 1, gap: -1 })), "gap −50 %");
  assert.equal(gapOf(of({ against: "theory", predicted: 0, measured: 2e-7, gap: 2e-7 })), "gap +2.0e-7");
  assert.equal(gapOf(of({ against: "theory", predicted: 2, measured: 2, gap: 0 })), "no gap");
  assert.equal(gapOf(of({ against: "baseline", predicted: 0.0045, measured: 0.85, gap: null })), "");
  assert.equal(besideOf(of({ against: "theory", predicted: 4.09 })), "formula says 4.09");
  assert.equal(besideOf(of({ against: "limit", predicted: 80 })), "limit 80");
  assert.equal(besideOf(of({ against: null, predicted: null })), "");
});

test("glossary terms are found once, with plurals and other forms, and not inside words", () => {
  setGlossary([
    { name: "token", text: "A piece of text." },
    { name: "loss", text: "How wrong." },
    { name: "attention head", text: "One attention.", forms: ["head"] },
  ]);
  const found = termsIn("Tokens: a token, heads, lossless, the loss, a loss, attention heads", new Set());
  assert.deepEqual(
    found.map(([start, end]) => [start, end]),
    [
      [0, 6],
      [17, 22],
      [38, 42],
    ],
  );
  assert.deepEqual(termsIn("token.json, my_token, loss.safetensors", new Set()), []); // names of files
  assert.equal(termsIn("the loss. A token.", new Set()).length, 2);
  assert.equal(termOf("losses")?.name, "loss");
  assert.equal(termOf("header"), null);
});

test("a brush is written as hexadecimal digits and read back", () => {
  const cells = Array.from({ length: 64 }, (_, i) => ((i * 7) % 3 === 0 ? 1 : 0));
  assert.deepEqual(cellsOf(written(cells), 64), cells);
  assert.equal(written(new Array(64).fill(0)), "");
  assert.deepEqual(cellsOf("", 8), new Array(8).fill(0));
});

test("a line chart knows its range and the point nearest to a place", () => {
  const s = { id: "a", label: "a", colour: "a", xs: [0, 5, 9], ys: [1, NaN, 3] };
  const b = boundsOf([s], [{ y: 4 }], null);
  assert.equal(b.x1, 9);
  assert.ok(b.y0 < 1 && b.y1 > 4);
  assert.deepEqual(
    nearest([s], 6).map(([, x]) => x),
    [5],
  );
});

test("colors mix from nothing to one or two hues", () => {
  const inks = { cold: [0, 0, 0], hot: [100, 100, 100], a: [200, 0, 0], b: [0, 200, 0] };
  assert.deepEqual(mixed(0, false, inks), [0, 0, 0]);
  assert.deepEqual(mixed(1, false, inks), [100, 100, 100]);
  assert.deepEqual(mixed(0.5, true, inks), [0, 0, 0]);
  assert.deepEqual(mixed(0, true, inks), [200, 0, 0]);
  assert.deepEqual(mixed(1, true, inks), [0, 200, 0]);
});

test("what Plotly would read as markup stands for itself", () => {
  assert.equal(plain("<b>a</b> & <script>"), "&lt;b&gt;a&lt;/b&gt; &amp; &lt;script&gt;");
  assert.equal(plain("&lt;"), "&amp;lt;");
  assert.equal(plain(3), 3);
  assert.equal(plain("stage 1\n<br>"), "stage 1<br>&lt;br&gt;"); // a page's new line is one; what somebody typed is not
});

test("a legend takes more lines where there is less room", () => {
  const names = ["as it is", "with the sticker", "with two of them"];
  assert.equal(legendLines(names, 700, 13), 1);
  assert.ok(legendLines(names, 230, 13) > 1);
});

test("the hash names the tab before the query does", () => {
  assert.equal(wantedTab("#tab=lora&step=3", "?tab=nanogpt"), "lora");
  assert.equal(wantedTab("", "?tab=nanogpt&run=train"), "nanogpt");
  assert.equal(wantedTab("", ""), null);
});

test("a bin ends what was begun, a signal forgets who left", () => {
  const bin = new Bin();
  const target = new EventTarget();
  let heard = 0;
  bin.on(target, "x", () => heard++);
  target.dispatchEvent(new Event("x"));
  bin.empty();
  target.dispatchEvent(new Event("x"));
  assert.equal(heard, 1);
  const signal = new Signal();
  const end = signal.on(() => heard++);
  signal.send();
  end();
  signal.send();
  assert.equal(heard, 2);
});
