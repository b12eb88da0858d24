"""The picture of `curriculum`: the same curves over tokens and over seconds, and what the layers get to see."""

from core.data_efficiency import CurriculumConfig, CurriculumStep
from pages._kit.charts import Panel, Sketch, axis, heat, lines, series
from pages._kit.player import player, view

NAMES = {"baseline": "baseline", "short": "short sequences first", "drop": "random token dropping"}
COLOURS = {"baseline": "text", "short": "a", "drop": "b"}


def curriculum_panels(config: CurriculumConfig) -> list[Panel]:
    loss = axis("loss on unseen text", "nats per character")
    members = [series(kind, name, COLOURS[kind], dots=True) for kind, name in NAMES.items()]
    tokens, seconds = axis("characters read by each model", "count", config.tokens), axis("time of the computing thread", "seconds")
    seen = view(
        "seen",
        "matrix",
        "Which tokens each layer sees (columns: positions in the sequence; filled: seen)",
        signed=True,
        words="{name}: {from}, position {column}",
    )
    return [
        lines("tokens", "The same loss over the characters read", tokens, loss, members, span=6, height=340),
        lines("seconds", "... and over the time it took", seconds, loss, members, span=6, height=340),
        player("plan", "", [seen], scrub="share of the budget", rate=3),
    ]


def draw_curriculum(step: CurriculumStep, sketch: Sketch) -> None:
    if step.validation is not None:
        for panel, x in (("tokens", step.tokens), ("seconds", step.seconds)):
            if step.tokens:
                sketch.point(panel, step.kind, x, step.validation)
            sketch.levels(panel, {} if step.tokens else {"untrained": step.validation})
    if step.seen is not None:
        left = [f"layer {layer + 1}" for layer in range(step.seen.shape[1])]
        share = f"{100 * step.share:.0f} % of the budget"
        sketch.frame("plan", share, seen=heat(-step.seen[None], list(NAMES.values()), left=left, low=-1.0, high=1.0))
    if step.goal is not None:
        for panel in ("tokens", "seconds"):
            sketch.levels(panel, {"baseline's last": step.goal})
