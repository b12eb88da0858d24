"""The picture of `chain`: the vectors of every stage, the clouds, and a row of pictures for each way."""

from core.dalle2.chain import ChainConfig, ChainStep
from pages._kit.charts import Panel, Sketch, axis, bars, chart, dots, heat, picture, ranking
from pages._kit.player import SIGNS, player, view

REACH = 0.3  # of the colors of a vector's numbers
ROWS = {64: (8, 8), 1280: (32, 40)}  # how a vector is laid out
EVERY = 2  # steps of the decoder in one frame
SHOWN = 96  # real pictures in the figure of the clouds
ASIDE, APART = 0.2, 0.15  # where the clouds' names stand; how far apart two of them must be
SHORT = {
    "real pictures": "real",
    "diffusion prior": "diffusion",
    "autoregressive prior": "autoregressive",
    "no prior": "no prior",
}
COLOURS = {"real pictures": "level", "diffusion prior": "a", "autoregressive prior": "c", "no prior": "b"}
LATER = ("guess of z_i", "codes", "real z_i")  # vectors that are not there yet


CLOUDS = [
    ("level", "real pictures"),
    ("a", "the diffusion prior's"),
    ("c", "the autoregressive one's"),
    ("b", "the caption"),
]


def chain_panels(config: ChainConfig) -> list[Panel]:
    small = config.model == "shipped"
    words = "{name}: number {row}, {column} is {value}"
    title = "From the caption's z_t to z_i: the diffusion prior's, from noise" + (
        "; the autoregressive one's; the nearest real one" if small else ""
    )
    seen = [("c", "at the end: the judge sees what was asked", "frame")] if small else []
    film = [
        view("vectors", "matrix", title, square=True, signed=True, words=words, legend=SIGNS),
        view(
            "pictures",
            "pictures",
            "Decoded, each column from the same noise",
            legend=seen,
            span=7 if small else 12,
            most=128,
            least=56,
        ),
    ]
    if not small:
        return [player("film", "", film, scrub="step", rate=6, bar_before=1)]
    clouds = chart(
        axis("from the caption to the pictures", "distance"), axis("where the real ones differ most", "distance")
    )
    clouds["xaxis"] |= {"range": [-0.5, 0.5]}
    clouds["yaxis"] |= {"range": [-0.6, 0.6]}
    film.append(view("clouds", "plot", "Embeddings", span=5, layout=clouds, height=340, legend=CLOUDS))
    near = ranking(axis("cosine", "1 is the same", 1.02), axis("", ""), left=140)
    near["yaxis"] |= {"title": None}
    return [
        player("film", "", film, scrub="step", rate=6, bar_before=1),
        view("nearest", "plot", "Cosine with the nearest real picture", span=6, layout=near, height=230),
        view("spread", "plot", "Cosine of two embeddings for this caption", span=6, layout=near, height=230),
        {"id": "notes", "type": "text", "title": "", "span": 12, "height": 64},
    ]


def draw_chain(step: ChainStep, sketch: Sketch) -> None:
    if step.maps is None:
        return
    views: dict[str, object] = {"vectors": vectors(step)}
    begins, last = step.number == 0 and step.stage == "prior", bool(step.seen)
    if step.pixels is not None and (
        begins or (step.stage == "decoder" and (step.number % EVERY == 0 or last or step.real is None))
    ):
        views["pictures"] = pictures(step)
    if step.real is not None and step.text is not None:
        views["clouds"] = clouds(step)
    if begins and step.real is not None:
        sketch.film("film", [("caption and noise", views)])
        sketch.text("notes", notes(step))
    elif not begins and (step.stage == "prior" or "pictures" in views):
        sketch.frame("film", f"{step.stage}, step {step.number}", **views)
    if step.nearest and step.stage == "prior":
        show_cosines(sketch, "nearest", dict(step.nearest))
        show_cosines(sketch, "spread", dict(step.spread))


def show_cosines(sketch: Sketch, panel: str, told: dict[str, float]) -> None:
    """A bar for each way, in the colors of the clouds; what is not imagined yet has none."""
    names = [f"{SHORT[way]} {told[way]:.2f}" if way in told else SHORT[way] for way in COLOURS]
    (one,) = bars(names, [told.get(way, 0.0) for way in COLOURS])
    sketch.show(panel, [one | {"colours": list(COLOURS.values())}])


def vectors(step: ChainStep) -> dict[str, object]:
    """Every vector as a square of numbers, in the order of the chain; what is not there yet is empty."""
    known = [one.reshape(ROWS.get(len(one), (1, len(one)))) for one in step.maps]
    names = list(step.map_names)
    if step.real is not None:
        missing = LATER[len(known) - 2 :]
        names += missing
        known += [0 * known[0]] * len(missing)
    shape = known[0].shape
    stacked = known[0].repeat(len(known), 0).reshape(shape[0], len(known), shape[1]).swapaxes(0, 1).copy()
    for number, one in enumerate(known):
        stacked[number] = one
    return heat(stacked[None], names, low=-REACH, high=REACH)


def pictures(step: ChainStep) -> dict[str, object]:
    """A row for each way, with what the judge sees at the end."""
    told = []
    for row, way in enumerate(step.ways):
        for number, one in enumerate(step.pixels[row]):
            seen = step.seen[row][number] if step.seen else None
            right = "" if seen is None or step.asked is None else "c" if seen == step.asked else "b"
            told.append(
                picture(one, SHORT[way] if number == 0 else " ", under=" ".join(seen) if seen else " ", mark=right)
            )
    return {"columns": len(step.pixels[0]), "pictures": told}


def clouds(step: ChainStep) -> list[dict[str, object]]:
    def points(values: object, way: str) -> dict[str, object]:
        pairs = [(round(float(x), 3), float(y)) for x, y in values]  # type: ignore[attr-defined]
        return dots([x for x, _ in pairs], [y for _, y in pairs], SHORT[way], COLOURS[way])

    traces = [points(step.real[:SHOWN], "real pictures")]
    traces += [points(values, way) for values, way in zip(step.imagined, step.ways, strict=False)]
    x, y = (float(value) for value in step.text)
    heights = [height for _, _, height in step.grounds]
    if len(heights) == 1 or max(heights) - min(heights) > APART:
        named = dots(
            [middle + ASIDE for _, middle, _ in step.grounds],
            heights,
            "grounds",
            "level",
            names=[f"on {name}" for name, _, _ in step.grounds],
        )
        traces.append(named | {"mode": "text", "textposition": "middle right"})
    return [*traces, dots([x], [y], "caption", "b", names=["caption"])]


def notes(step: ChainStep) -> str:
    asked = " ".join(step.asked) if step.asked else "not one color and one shape, so nothing is classified"
    return f"{len(step.words)} words → 1 vector → asked for: {asked}.\n{step.note}"
