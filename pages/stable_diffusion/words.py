"""The picture of `words`: both prompts as they are drawn, heat maps, each word's heat over the picture, and many
noises.
"""

from core.stable_diffusion.words import WAYS, WordsConfig, WordsStep
from pages._kit.charts import Panel, Sketch, axis, bars, chart, dots, heat, picture, ranking
from pages._kit.player import player, view

COLOURS = {"words": "a", "both": "b"}
MAPS = [("a", "maps of words"), ("b", "maps of words and places")]
FILLED = ""  # the name of a map that only fills up the last row


def words_panels(config: WordsConfig) -> list[Panel]:
    shares = ranking(axis("heat on the object", "% of the word's", 100), axis("", ""), left=96)
    shares["yaxis"] |= {"title": None}
    outside, sees = (
        chart(axis("steps with the first one's maps", "% of all"), axis(what, "%"))
        for what in ("pixels changed outside", "judge sees the new one")
    )
    for one in (outside, sees):
        one["xaxis"] |= {"range": [-4, 104]}
        one["yaxis"] |= {"rangemode": "tozero"}
    sees["yaxis"] |= {"range": [0, 104]}
    reads = [("b", "read more than on this word's average"), ("a", "less")]
    film = [
        view(
            "pictures",
            "pictures",
            "Predicted picture: prompt, changed prompt, changed prompt with the first one's maps",
            span=7,
            most=150,
            least=104,
        ),
        view(
            "heat",
            "matrix",
            "Where each token is read, at this step",
            span=5,
            square=True,
            signed=True,
            words="{name}: {value} x its mean",
            legend=reads,
        ),
    ]
    return [
        player("film", "", film, scrub="step", rate=4, bar_before=None),
        view("over", "pictures", "Mean over the steps, on the picture", legend=reads, span=7, most=118, least=78),
        view("shares", "plot", "Heat on the object", span=5, layout=shares, height=270, legend=[("level", "its area")]),
        view("outside", "plot", "Pixels changed outside", span=6, layout=outside, height=280, legend=MAPS),
        view("sees", "plot", "Does the changed word still get its way?", span=6, layout=sees, height=280, legend=MAPS),
    ]


def draw_words(step: WordsStep, sketch: Sketch) -> None:
    if step.pixels is None or step.heat is None or step.over is None:
        return
    drawing = not step.sweep and (not step.told or bool(step.figures))  # not yet the many noises
    if drawing:
        draw_moment(step, sketch)
    if drawing and (step.step == 1 or step.told):
        told = [
            picture(one, name, under=f"{share:.0f} %")
            for one, (name, share, _) in zip(step.over, step.shares, strict=True)
        ]
        sketch.show("over", {"columns": min(4, len(told)), "pictures": told})
    own = bars([name for name, *_ in step.shares], [share for _, share, _ in step.shares], label="heat", colour="a")
    sketch.show("shares", bars(["the area"], [step.area], label="area", colour="level") + own)
    for panel, place in (("outside", 2), ("sees", 3)):
        sketch.show(panel, over_shares(step, place))


def draw_moment(step: WordsStep, sketch: Sketch) -> None:
    """A frame: three predicted pictures and a map per token."""
    names, under = ("prompt", "changed", "with first's maps"), step.told or ("", "", "", "")
    told = [
        picture(one, name, under=words, mark=mark)
        for one, name, words, mark in zip(step.pixels[:3], names, under[:3], ("level", "a", "b"), strict=True)
    ]
    rows, columns = step.heat.shape[:2]
    labels = [*step.names, *[FILLED] * (rows * columns - len(step.names))]
    sketch.frame(
        "film",
        f"step {step.step}, t = {step.t}",
        pictures={"columns": 3, "pictures": told},
        heat=heat(step.heat, labels, low=0.0, high=2.0),
    )


def over_shares(step: WordsStep, place: int) -> list[dict[str, object]]:
    """A line per way over the fraction of the steps; both begin where no maps are reused."""
    if not step.sweep:
        return [dots([], [], "", "a")]
    traces = []
    for way in WAYS:
        rows = [row for row in step.sweep if row[0] in ("", way)]
        traces.append(
            dots(
                [100 * row[1] for row in rows],
                [row[place] for row in rows],
                f"maps {WAYS[way]}",
                COLOURS[way],
                line=True,
            )
        )
    return traces
