"""The picture of `grow`: the time of each token twice, what is computed and what is kept, the bytes, and the roof."""

from typing import Any

from core.kv_cache import GrowConfig, GrowStep
from core.kv_cache.grow import extent_of
from pages._kit.charts import Panel, Sketch, axis, chart, curve, dots, lines, series, text
from pages._kit.player import player, view

TOKENS = "tokens of the text"
FRAMES = 72  # of the film at most
ROOF = chart(axis("operations per byte", "FLOP/byte"), axis("operations per second", "GFLOP/s"), log_x=True, log_y=True)


def grow_panels(config: GrowConfig) -> list[Panel]:
    off, on = series("off", "cache off", "b", dots=True), series("on", "cache on", "a", dots=True)
    floors = [series("off_floor", "its floor", "b", faint=True), series("on_floor", "its floor", "a", faint=True)]
    film = [
        view(
            "rows",
            "draw",
            "Keys and values while this token is computed",
            legend=[("b", "computed for it"), ("a", "cached"), ("grid", "reserved")],
            height=205,
            aspect=0.5,
            x=TOKENS,
        )
    ]
    most = extent_of(config).batches[-1]
    held = [series("formula", "formula", "level", faint=True), series("held", "measured", "a")]
    return [
        lines(
            "each",
            "Time of each token, and its floor",
            axis(TOKENS, "count"),
            axis("time", "ms"),
            [*floors, off, on],
            span=7,
            height=255,
        ),
        text("text", "What both write, from the same seed", span=5, height=235),
        player("film", "", film, scrub="token", rate=8, bar_before=None),
        lines(
            "sum",
            "All tokens so far",
            axis(TOKENS, "count"),
            axis("time", "s"),
            [*floors, series("off", "off", "b"), series("on", "on", "a")],
            span=6,
            height=195,
        ),
        lines(
            "bytes",
            f"Memory of the cache, in blocks of {config.block}",
            axis(TOKENS, "count"),
            axis("storages", "kB"),
            held,
            span=6,
            height=195,
        ),
        view(
            "roof",
            "plot",
            f"Under this machine's roof: one token of 1 to {most} texts, and a prompt",
            span=8,
            layout=ROOF,
            height=285,
        ),
        text("passes", "How much of the roof is reached", span=4, height=265),
    ]


def draw_grow(step: GrowStep, sketch: Sketch) -> None:
    if step.floors:
        for tokens, off, on, off_sum, on_sum, nbytes in step.floors:
            for panel, kept, anew in (("each", on, off), ("sum", on_sum, off_sum)):
                sketch.point(panel, "off_floor", tokens, anew)
                sketch.point(panel, "on_floor", tokens, kept)
            sketch.point("bytes", "formula", tokens, nbytes / 1e3)
        draw_film(step, sketch)
    if step.text:
        sketch.text("text", words(step))
    if step.on_ms is not None and step.off_ms is not None:
        before = step.tokens - 1  # the token that was written came from so many
        sketch.point("each", "off", before, step.off_ms)
        sketch.point("each", "on", before, step.on_ms)
        sketch.point("sum", "off", before, step.off_seconds)
        sketch.point("sum", "on", before, step.on_seconds)
        sketch.point("bytes", "held", before, step.cache_bytes / 1e3)
        if (step.most - step.tokens) % -(-step.most // FRAMES) == 0:
            draw_film(step, sketch)
    if step.roof:
        sketch.show("roof", roof(step))
        sketch.text("passes", passes(step))


def words(step: GrowStep) -> str:
    """The stamp, then the text."""
    if not step.difference:
        return f"{step.text}\n\n(the prompt)" if step.floors else step.text
    stamp = (
        "The same text with and without the cache."
        if step.same
        else "The texts differ: a draw fell between two roundings."
    )
    return f"{stamp}\nLargest difference of logits: {step.difference:.1e}\n\n{step.text}"


def draw_film(step: GrowStep, sketch: Sketch) -> None:
    """Two rows of bars over the places of the text: without the cache all is computed, with it one token."""
    new = max(step.most / 90, 1.0)  # wide enough to be seen
    tokens = step.tokens if step.floors else step.tokens - 1
    capacity = min(-(-tokens // step.block) * step.block, step.most + step.block)
    kept = max(0.0, tokens - new)
    first = bool(step.floors)  # the prompt's own pass
    shapes: list[dict[str, Any]] = [
        {"id": "frame", "kind": "line", "x": 0, "y": 0, "w": step.most + step.block, "h": 0, "fill": "grid"},
        {"id": "off", "kind": "rect", "x": 0, "y": 3, "w": tokens, "h": 1, "fill": "b"},
        {"id": "reserved", "kind": "rect", "x": 0, "y": 0.6, "w": capacity, "h": 1, "fill": "grid"},
        {"id": "kept", "kind": "rect", "x": 0, "y": 0.6, "w": 0 if first else kept, "h": 1, "fill": "a"},
        {
            "id": "new",
            "kind": "rect",
            "x": 0 if first else kept,
            "y": 0.6,
            "w": tokens if first else tokens - kept,
            "h": 1,
            "fill": "b",
        },
    ]
    shapes += [
        {"id": f"block{place}", "kind": "line", "x": place, "y": 0.6, "w": 0, "h": 1, "fill": "veil"}
        for place in range(step.block, step.most + step.block, max(step.block, step.most // 24))
    ]
    middle = (step.most + step.block) / 2
    one = f"{tokens} rows" if first else "1 row"
    shapes += [
        {"id": "off_text", "kind": "text", "x": middle, "y": 4.5, "text": f"cache off: {tokens} rows computed"},
        {
            "id": "on_text",
            "kind": "text",
            "x": middle,
            "y": 2.1,
            "text": f"cache on: {one} computed, {0 if first else tokens - 1} kept",
        },
    ]
    label = f"the prompt, {tokens} tokens: prefill, both compute all" if first else f"token {step.tokens}"
    sketch.frame("film", label, rows=shapes)


def roof(step: GrowStep) -> list[dict[str, Any]]:
    """The roof of two lines, on it what is possible (rings' places), under it what was reached."""
    flops, nbytes = step.rates[0] / 1e9, step.rates[1] / 1e9
    ridge = flops / nbytes
    intensities = [x for _, x, _, _ in step.roof]
    low, high = min(intensities) / 2, max(intensities) * 3
    traces = [curve([low, ridge, high], [low * nbytes, flops, flops], "roof", "level")]
    traces.append(word(high, flops, f"roof: {flops:.0f} GFLOP/s", "top left"))
    traces.append(dots(intensities, [floor for _, _, floor, _ in step.roof], "at most", "level"))
    reached = [(name, x, y) for name, x, _, y in step.roof if y is not None]
    traces.append(dots([x for _, x, _ in reached], [y for *_, y in reached], "measured", "a"))
    for name, x, y in reached:
        short = name.removeprefix("decode, ").removesuffix(f", {step.roof_tokens} tokens")
        traces.append(
            word(x, y, f"{short}  ", "middle left")
            if short == "16 texts"
            else word(x, y * 0.85, short, "bottom center")
        )
    lowest = min([floor for _, _, floor, _ in step.roof] + [y for *_, y in reached])
    traces.append(curve([low, low], [lowest * 0.3, flops * 2], "", "grid"))
    return traces


def word(x: float, y: float, words: str, where: str) -> dict[str, Any]:
    return dots([x], [y], "", "text", names=[words]) | {"mode": "text", "textposition": where, "cliponaxis": False}


def passes(step: GrowStep) -> str:
    """A line per pass: its operations per byte, and how far below its floor it stays."""
    lines = [f"{'':<12}{'FLOP/':>7}{'of the':>9}", f"{'':<12}{'byte':>7}{'roof':>9}"]
    for name, intensity, floor, reached in step.roof:
        short = name.replace("decode, ", "").replace(f", {step.roof_tokens} tokens", f" {step.roof_tokens}")
        told = "–" if reached is None else f"{100 * reached / floor:.0f} %"
        lines.append(f"{short:<12}{intensity:>7.2f}{told:>9}")
    (flops, nbytes), kept = step.rates, step.roof_tokens
    text = [
        "",
        f"memory:     {nbytes / 1e9:.1f} GB/s",
        f"arithmetic: {flops / 1e9:.0f} GFLOP/s",
        "(both measured here, once)",
    ]
    return "\n".join([*lines, "", "Each text writes one token and", f"has {kept} kept; the prompt has {kept}.", *text])
