"""The picture of `dedup`: the S-curve with the measured hit rates on it, and what two fleets learn with and without
copies.
"""

from typing import Any

from core.data_efficiency.dedup import DedupConfig, DedupStep, Hit, Look
from pages._kit.charts import Panel, Sketch, axis, chart, curve, dots, text
from pages._kit.player import view

KINDS = ("with copies", "without")
COLOURS = ("b", "a")
Trace = dict[str, Any]


def dedup_panels(config: DedupConfig) -> list[Panel]:
    similar, found = axis("Jaccard similarity of a pair", "share"), axis("pairs that MinHash-LSH finds", "%")
    read, loss = axis("characters read", "count"), axis("loss on unseen text", "nats per character")
    hashing, training = chart(similar, found), chart(read, loss)
    hashing["xaxis"] |= {"range": [0, 1.04]}
    hashing["yaxis"] |= {"range": [-4, 112]}
    training["xaxis"] |= {"range": [0, 1.04 * config.tokens]}
    training["margin"]["r"] = 118
    return [
        view(
            "hits",
            "plot",
            "How often a pair of passages is found: the S-curve, and what was measured",
            span=7,
            height=400,
            layout=hashing,
        ),
        view("losses", "plot", "The same budget, read with copies and without", span=5, height=400, layout=training),
        text("recalls", "A repeated passage, and how the models go on after its beginning", span=12, height=290),
    ]


def draw_dedup(step: DedupStep, sketch: Sketch) -> None:
    if step.curve:
        sketch.show("hits", hits(step))
    if step.example:
        one, other, similarity = step.example
        sketch.text("recalls", f"Two passages with a similarity of {similarity:.2f}:\n\n{one}\n\n{other}")
        blind = dots([0], [0], "", "text", names=["trained after the hashing"]) | {
            "mode": "text",
            "textposition": "middle right",
            "hoverinfo": "skip",
        }
        sketch.show("losses", [blind])
    if step.looks:
        sketch.show("losses", [trace for kind in range(2) for trace in path(step.looks, kind)])
        sketch.text("recalls", recalled(step))


def hits(step: DedupStep) -> list[Trace]:
    """The curve and its name, the pairs on it before they are hashed, and the measured rates."""
    xs, ys = [s for s, _ in step.curve], [100 * p for _, p in step.curve]
    middle = min(range(len(ys)), key=lambda at: abs(ys[at] - 30))
    name = dots([xs[middle]], [ys[middle]], "", "level", names=["1 − (1 − sʳ)ᵇ "]) | {
        "mode": "text",
        "textposition": "middle left",
        "hoverinfo": "skip",
    }
    traces = [curve(xs, ys, "predicted", "level", dash=True), name]
    if step.pairs:
        low = dots(step.pairs, [-2.0] * len(step.pairs), "a pair of passages", "c")
        words = dots([0.03], [5.0], "", "c", names=["each dot: a pair of passages"]) | {
            "mode": "text",
            "textposition": "middle right",
            "hoverinfo": "skip",
        }
        traces += [low, words]
    return traces + measured(step.hits)


def measured(found: tuple[Hit, ...]) -> list[Trace]:
    if not found:
        return []
    xs, ys, errors = (
        [hit.similarity for hit in found],
        [100 * hit.measured for hit in found],
        [100 * hit.error for hit in found],
    )
    high = max(range(len(found)), key=lambda at: (ys[at] < 99, ys[at]))
    name = dots([xs[high]], [ys[high]], "", "a", names=["measured  "]) | {
        "mode": "text",
        "textposition": "middle left",
        "hoverinfo": "skip",
    }
    return [dots(xs, ys, "measured", "a", errors=errors), name]


def path(looks: tuple[Look, ...], kind: int) -> list[Trace]:
    """One kind's loss over the characters read, its name at the end."""
    xs, ys, errors = (
        [look.tokens for look in looks],
        [look.losses[kind] for look in looks],
        [look.loss_spread[kind] for look in looks],
    )
    name = dots([xs[-1]], [ys[-1]], "", COLOURS[kind], names=[f" {KINDS[kind]} {ys[-1]:.2f}"])
    return [
        dots(xs, ys, KINDS[kind], COLOURS[kind], line=True, errors=errors),
        name | {"mode": "text", "textposition": "middle right", "hoverinfo": "skip", "cliponaxis": False},
    ]


def recalled(step: DedupStep) -> str:
    """The passages with what the first model of each kind says, and how far it is right; then the mean of all
    models.
    """
    look, rows = step.looks[-1], list[str]()
    for one in step.recalls[:2]:
        rows += [f"After «{shown(one.start)}»", f"{'it goes on':16}  {shown(one.truth)}"]
        for kind, said in zip(KINDS, one.said, strict=True):
            right = next((at for at, (a, b) in enumerate(zip(said, one.truth, strict=True)) if a != b), len(said))
            rows.append(f"{kind:12} {right:3}  {shown(said[:right])}┃{shown(said[right:])}")
        rows.append("")
    told = [
        f"{kind} {mean:.1f} ± {spread:.1f}"
        for kind, mean, spread in zip(KINDS, look.recalled, look.recall_spread, strict=True)
    ]
    return "\n".join(
        [
            f"Characters right word for word (up to ┃), mean of all models and passages: {', '.join(told)}.",
            "",
            *rows[:-1],
        ]
    )


def shown(words: str) -> str:
    return words.replace("\n", "↵")
