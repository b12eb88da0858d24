"""The picture of `shrink`: bytes against perplexity, bytes over the text, loss along the text, texts, and the poisoned
word.
"""

import math
from typing import Any

from core.kv_cache import ShrinkConfig, ShrinkStep
from pages._kit.charts import Panel, Sketch, axis, bars, chart, curve, dots, ranking, text, visible
from pages._kit.player import view

LEARNED = 128  # tokens of the base's own sequences
COLOURS = ("text", "d", "d", "b", "e", "a", "c")  # of the variants, in their order
TOP = "top center"
FIRST_WIDE = 1.5  # times the texts' tokens: room for names at the ends of lines


def shrink_panels(config: ShrinkConfig) -> list[Panel]:
    price = chart(
        axis(f"cache of a text of {config.context} tokens", "kB, log"),
        axis("perplexity", "log"),
        log_x=True,
        log_y=True,
    )
    for one, marks in (("xaxis", (10, 50, 200, 1000, 5000)), ("yaxis", (10, 20, 50, 100, 200, 500, 1000, 2000, 5000))):
        price[one] |= {"tickvals": list(marks), "ticktext": [f"{mark:,}" for mark in marks]}
    along = chart(axis("place in the text", "tokens"), axis("loss, less the full cache's", "nats"))
    nbytes = chart(axis("tokens read", "count", config.context * FIRST_WIDE), axis("cache of a text", "kB"))
    harm, nexts = (
        ranking(axis(*words), axis("", ""), left=96, legend=legend)
        for words, legend in ((("harm to the next token", "KL, nats"), False), (("probability", "%"), True))
    )
    for layout in (harm, nexts):
        layout["yaxis"] |= {"title": None}
    return [
        view(
            "price",
            "plot",
            f"What each saves and costs, on {min(LEARNED, config.context)} tokens",
            span=7,
            layout=price,
            height=380,
        ),
        view("bytes", "plot", "Bytes: formula (lines), measured (dots)", span=5, layout=nbytes, height=380),
        view("along", "plot", "The windows against the full cache, along the text", span=6, layout=along, height=290),
        text("texts", "Your prompt, continued; ▸ where it leaves the full cache", span=6, height=270),
        view("harm", "plot", "Harm of turning one cached token into noise", span=4, layout=harm, height=430),
        view("nexts", "plot", "Next token, clean and poisoned", span=4, layout=nexts, height=430),
        text("poisoned", "What is written after the poisoned word", span=4, height=410),
    ]


def draw_shrink(step: ShrinkStep, sketch: Sketch) -> None:
    sketch.show("price", price_of(step))
    sketch.show("bytes", bytes_of(step))
    sketch.show("along", along_of(step))
    if step.harm:
        sketch.show("harm", harm_of(step))
        sketch.show("nexts", nexts_of(step))
        word = "".join(token for place, (token, _) in enumerate(step.harm) if place in step.chosen).strip()
        sketch.text(
            "poisoned",
            f"“{word}” is still in the text.\nIn the cache its keys and values\nare noise.\n\n(both continuations"
            " come\nwith the run)",
        )
        prompt = "".join(token for token, _ in step.harm)
        sketch.text("texts", f"{prompt}…\n\n(from here every cache goes on)")
    if step.texts:
        sketch.text("texts", "\n\n".join(continued(*one) for one in step.texts))
    if step.clean:
        sketch.text("poisoned", f"clean:\n…{step.clean}\n\npoisoned:\n…{step.changed}")


# --- bytes and perplexity ---------------------------------------------------------------------------------------------


def colour_of(name: str, step: ShrinkStep) -> str:
    names = [one for one, _ in step.formulas]
    return COLOURS[names.index(name.removesuffix(", trained"))]


# Of a name beside its dot, in the order of the variants: where, and how far up, in times the perplexity; many are
# equally good.
WHERE = (
    (TOP, 1.0),
    (TOP, 1.0),
    (TOP, 1.0),
    ("bottom left", 1.0),
    ("top left", 1.0),
    (TOP, 1.35),
    ("bottom right", 1.0),
)


def price_of(step: ShrinkStep) -> list[dict[str, Any]]:
    """A dot per variant at its bytes and its perplexity; a line from averaged heads to trained ones."""
    ends = {name: corners[-1][1] / 1e3 for name, corners in step.formulas}
    low, high = min(ends.values()) / 7, max(ends.values()) * 2
    traces = [curve([low, high], [step.near] * 2, "without a cache", "level", dash=True)]
    traces.append(label(high, step.near * 0.55, f"dashed: no cache, {step.near:.1f}", "middle left"))
    traces += [label(low, step.near * times, "", "middle right") for times in (0.4, 110)]  # room for names
    paid = {name: perplexity for name, _, perplexity in step.price}
    for place, (name, kilobytes) in enumerate(ends.items()):
        colour = colour_of(name, step)
        if name not in paid:  # its bytes are known; what it costs is not
            traces.append(dots([kilobytes], [step.near], name, "level"))
            continue
        traces.append(dots([kilobytes], [paid[name]], name, colour))
        where, up = WHERE[place]
        traces.append(label(kilobytes, up * paid[name], f" {name}: {paid[name]:,.1f} ", where, colour))
        trained = paid.get(f"{name}, trained")
        if trained is not None:
            traces.append(curve([kilobytes] * 2, [paid[name], trained], "training", colour, dash=True))
            traces.append(dots([kilobytes], [trained], f"{name}, trained", colour))
            traces.append(label(kilobytes, trained, f" trained: {trained:,.1f} ", "middle right", colour))
    return traces


def label(x: float, y: float, words: str, where: str, colour: str = "text") -> dict[str, Any]:
    return dots([x], [y], "", colour, names=[words]) | {"mode": "text", "textposition": where, "cliponaxis": False}


def bytes_of(step: ShrinkStep) -> list[dict[str, Any]]:
    """The formulas as lines with their names at the ends, moved apart; what was weighed as dots."""
    traces, most = list[dict[str, Any]](), max(corners[-1][1] for _, corners in step.formulas) / 1e3
    weighed, free = dict(step.weighed), -math.inf
    for name, corners in sorted(step.formulas, key=lambda told: told[1][-1][1]):
        colour, end = colour_of(name, step), corners[-1]
        traces.append(curve([tokens for tokens, _ in corners], [nbytes / 1e3 for _, nbytes in corners], name, colour))
        free = max(end[1] / 1e3, free + 0.052 * most)
        traces.append(label(end[0] * 1.01, free, name, "middle right", colour))
        if name in weighed:
            traces.append(
                dots(
                    [tokens for tokens, _ in weighed[name]],
                    [nbytes / 1e3 for _, nbytes in weighed[name]],
                    "measured",
                    colour,
                )
            )
    return traces


def along_of(step: ShrinkStep) -> list[dict[str, Any]]:
    """The windows' loss by place, less that of the full cache, which is the same as without a cache."""
    places, names = [step.at * (bin + 0.5) for bin in range(len(step.one_pass))], [name for name, _ in step.formulas]
    traces = [
        curve([0.0, places[-1]], [0.0, 0.0], "full cache", "text"),
        label(places[-1], 0.0, "full cache", "top left"),
    ]
    losses, reach = dict(step.losses), 0.05
    for name in names[3:5]:
        more = [window - full for window, full in zip(losses.get(name, ()), step.one_pass, strict=False)]
        if more:
            traces.append(dots(places[: len(more)], more, name, colour_of(name, step), line=True))
            reach = max([reach, *map(abs, more)])
    ends = [(losses[name][-1] - step.one_pass[len(losses[name]) - 1], name) for name in names[3:5] if losses.get(name)]
    for (value, name), where in zip(sorted(ends), ("bottom left", "top right"), strict=False):
        traces.append(label(places[len(losses[name]) - 1], value, f" {name} ", where, colour_of(name, step)))
    if places[-1] > LEARNED:
        traces.append(curve([LEARNED, LEARNED], [-reach, reach], "learned", "level", dash=True))
        traces.append(label(LEARNED, reach, " beyond what was learned", "middle right"))
    return [*traces, label(places[-1] * 1.45, -1.15 * reach, "", "middle right")]


def continued(name: str, same: str, rest: str, tokens: int) -> str:
    words = (same + "▸" + rest if rest else same).replace("\n", "↵")
    return f"{name} (the same for {tokens} tokens):\n…{words}"


# --- the poisoned word ------------------------------------------------------------------------------------------------


def harm_of(step: ShrinkStep) -> list[dict[str, Any]]:
    names = [f"{place + 1} {quoted(token)}" for place, (token, _) in enumerate(step.harm)]
    (shown,) = bars(names, [kl for _, kl in step.harm])
    return [shown | {"colours": ["b" if place in step.chosen else "a" for place in range(len(names))]}]


def nexts_of(step: ShrinkStep) -> list[dict[str, Any]]:
    names = [quoted(token) for token, *_ in step.nexts]
    clean = bars(names, [100 * p for _, p, _ in step.nexts], label="clean", colour="a")
    return clean + bars(names, [100 * p for *_, p in step.nexts], label="poisoned", colour="b")


def quoted(token: str) -> str:
    return f"“{visible(token)}”"
