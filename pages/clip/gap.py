"""The picture of `gap`: the clouds slide together, retrieval beside them, and the same clouds before training."""

from core.clip.gap import SHIFTS, GapConfig, GapStep
from pages._kit.charts import Panel, Sketch, axis, bars, chart, curve, dots, ranking
from pages._kit.player import player, view

LINES = 24  # pairs that are joined by a line


SIDES = [("a", "pictures"), ("b", "captions")]


def gap_panels(config: GapConfig) -> list[Panel]:
    across, down = axis("along the gap", "distance"), axis("across it", "distance")
    clouds, fresh = chart(across, down), chart(across, down)
    for one, low, high in ((clouds, -1.2, 1.2), (fresh, -1.2, 1.2)):
        one["xaxis"] |= {"range": [low, high]}
        one["yaxis"] |= {"range": [-1.1, 1.1]}
    recall = chart(axis("shift toward the captions", "distance"), axis("find theirs first", "%", 105))
    distance = chart(axis("shift", "distance"), axis("gap", "distance"))
    for one in (recall, distance):
        one["xaxis"] |= {"range": [SHIFTS[0] - 0.06, SHIFTS[-1] + 0.06]}
    within = ranking(axis("mean cosine", "-1 to 1"), axis("", ""), left=100)
    within["yaxis"] |= {"title": None}
    film = [
        view(
            "clouds",
            "plot",
            "Pictures slide toward captions; some pairs are joined",
            legend=SIDES,
            span=7,
            layout=clouds,
            height=380,
        ),
        view("recall", "plot", "Who finds theirs", span=5, layout=recall, height=380, legend=SIDES),
    ]
    return [
        player("film", "", film, scrub="shift", rate=3, bar_before=None),
        view(
            "distance",
            "plot",
            "The gap",
            span=4,
            layout=distance,
            height=290,
            legend=[("a", "measured"), ("level", "|g - shift|", "dashed")],
        ),
        view("fresh", "plot", "The same pairs before training", span=4, layout=fresh, height=290),
        view(
            "within",
            "plot",
            "How alike",
            span=4,
            layout=within,
            height=290,
            legend=[("level", "untrained"), ("a", "trained")],
        ),
    ]


def draw_gap(step: GapStep, sketch: Sketch) -> None:
    if step.pictures is not None and step.shift is None:
        first = cloud_traces(step, False)
        gap = step.gap or 0.0
        sketch.film("film", [("before the slide", {"clouds": first, "recall": [dots([0.0], [None], "", "a")]})])
        sketch.show(
            "distance",
            [
                curve([0.0, 1.0, SHIFTS[-1]], [gap, 0.0, gap * (SHIFTS[-1] - 1)], "(1 - s) of it", "level", dash=True),
                dots([0.0], [gap], "gap", "a"),
            ],
        )
        sketch.show("fresh", first)
        sketch.show("within", bars(["their gap"], [gap]))
    if step.so_far:
        draw_slide(step, sketch)
    if step.untrained_pictures is not None:
        draw_untrained(step, sketch)


def draw_slide(step: GapStep, sketch: Sketch) -> None:
    """A frame: the clouds at this shift, and retrieval up to it. The first one replaces what stood there before the
    slide.
    """
    shifts, gaps, expected, by_picture, by_text = ([told[place] for told in step.so_far] for place in range(5))
    recall = [dots(shifts, by_picture, "pictures", "a", line=True), dots(shifts, by_text, "captions", "b", line=True)]
    label = f"shift {step.shift:.3g}"
    views = {"clouds": cloud_traces(step), "recall": recall}
    if len(shifts) == 1:
        sketch.film("film", [(label, views)])
    else:
        sketch.frame("film", label, **views)
    sketch.show("distance", [formula(expected[0] + shifts[0]), dots(shifts, gaps, "measured", "a", line=True)])


def formula(gap: float) -> dict[str, object]:
    """|g - shift| over the shift."""
    return curve(
        [SHIFTS[0], gap, SHIFTS[-1]], [gap - SHIFTS[0], 0.0, abs(SHIFTS[-1] - gap)], "|g - shift|", "level", dash=True
    )


def cloud_traces(step: GapStep, joined: bool = True) -> list[dict[str, object]]:
    px, py, tx, ty = (
        [float(number) for number in cloud[:, place]] for cloud in (step.pictures, step.texts) for place in (0, 1)
    )
    traces = []
    if joined:
        xs = [part for a, b in list(zip(px, tx, strict=True))[:LINES] for part in (a, b, None)]
        ys = [part for a, b in list(zip(py, ty, strict=True))[:LINES] for part in (a, b, None)]
        traces.append(curve(xs, ys, "pairs", "level") | {"line": {"width": 1}, "opacity": 0.5})
    return [*traces, dots(px, py, "pictures", "a"), dots(tx, ty, "captions", "b")]


def draw_untrained(step: GapStep, sketch: Sketch) -> None:
    xs = [
        [float(point[axis]) for point in cloud]
        for cloud in (step.untrained_pictures, step.untrained_texts)
        for axis in (0, 1)
    ]
    sketch.show("fresh", [dots(xs[0], xs[1], "pictures", "a"), dots(xs[2], xs[3], "captions", "b")])
    names = [name for name, *_ in step.within]
    sketch.show(
        "within",
        bars(names, [before for _, before, _ in step.within], label="untrained", colour="level")
        + bars(names, [after for *_, after in step.within], label="trained", colour="a"),
    )
