"""The picture of `microscope`: the film of the weights, then use, price, and one outlier."""

from core.qlora import MicroscopeConfig, MicroscopeStep
from pages._kit.charts import Panel, Sketch, axis, bars, chart, columns, curve, dots, heat, ranking, spikes
from pages._kit.player import player, view

TALLEST = {
    "nf4": 12.0,
    "fp4": 21.0,
    "int4": 18.0,
    "int8": 6.0,
}  # % of the weights in one bin: how far the axis reaches, so that nothing jumps
LARGE_BLOCK = 1.4  # ... times this for large blocks: their constant is larger, so more weights are near zero
BIN = 0.025
ERRORS = "row {row}, column {column}: error {value} standard deviations"


DIRECTIONS = [("a", "rounded down"), ("b", "rounded up")]
USED_BY = [("a", "by the layer's weights"), ("b", "by normal numbers")]
PRICES = [("level", "by formula"), ("a", "weighed"), ("b", "in a layer of 1024 x 1024")]


def microscope_panels(config: MicroscopeConfig) -> list[Panel]:
    tallest = TALLEST[config.kind] * (LARGE_BLOCK if int(config.block) > 256 else 1)
    across = chart(axis("weight / largest of its block", "ratio"), axis("weights", "% per bin", tallest))
    hint = "Rows are outputs of the layer. Point at a weight."
    film = [
        view(
            "weights",
            "plot",
            "All weights of the layer, on their way to the levels of the code",
            span=8,
            layout=across,
            height=330,
        ),
        view(
            "errors",
            "matrix",
            "The error of each weight",
            span=4,
            signed=True,
            square=True,
            words=ERRORS,
            hint=hint,
            legend=DIRECTIONS,
        ),
    ]
    used = chart(
        axis("level", "number, from -1 to 1"),
        axis("used by", "% of the weights", None if config.kind == "int8" else tallest),
    )
    price = ranking(axis("kept", "bits per weight"), axis("", ""), left=118)
    price["yaxis"] |= {"title": None}
    block = chart(axis("place in the block", "number"), axis("value", "the layer's own scale"))
    harm = chart(axis("block", "number"), axis("error", "root mean square"))
    stored = [("level", "its weights"), ("a", "stored")]
    errors = [("a", "each block")]
    if config.outlier > 1:
        stored.append(("b", f"stored after one weight grew {config.outlier:g} times"))
        errors.append(("b", "that block then"))
    return [
        player("film", "", film, scrub="way to the levels", rate=6, bar_before=None),
        view("block", "plot", "The weights of a block", legend=stored, span=7, layout=block, height=300),
        view("harm", "plot", "The error of each block", legend=errors, span=5, layout=harm, height=300),
        view("used", "plot", "How often each level is used", legend=USED_BY, span=6, layout=used, height=270),
        view("price", "plot", "Bits besides the codes", legend=PRICES, span=6, layout=price, height=270),
    ]


def draw_microscope(step: MicroscopeStep, sketch: Sketch) -> None:
    if step.histogram is not None:
        draw_film(step, sketch)
    if step.block is not None:
        draw_block(step, sketch)
    if step.errors_before is not None:
        draw_harm(step, sketch)
    if (step.levels and not step.moved) or step.occupancy:
        draw_used(step, sketch)
    if step.formula:
        draw_price(step, sketch)


def draw_film(step: MicroscopeStep, sketch: Sketch) -> None:
    """A frame: the weights as columns over the levels as spikes, and the map of what was lost so far."""
    centres = [round(BIN * place - 1, 3) for place in range(len(step.histogram))]
    shares = [100 * float(share) for share in step.histogram]
    weights = columns(centres, shares, "weights", "a", width=BIN)
    levels = [spikes(step.levels, 100.0, "levels", "level") | {"line": {"width": 1}}] if len(step.levels) <= 16 else []
    reach = step.error_reach
    rows, wide = step.error_map.shape
    errors = heat(
        step.error_map.reshape(1, 1, rows, wide), [f"first {rows} rows, {wide} columns"], low=-reach, high=reach
    )
    grown = step.block_after is not None
    label = "one weight has grown" if grown else f"{step.moved:.0%} of the way"
    sketch.frame("film", label, weights=[*levels, weights], errors=errors)


def draw_block(step: MicroscopeStep, sketch: Sketch) -> None:
    """The weights as they are, as they are stored, and as they are stored beside the outlier, which is far off the
    chart.
    """
    places = [place for place in range(len(step.block)) if place != step.outlier_at]
    traces = [columns(places, [float(step.block[place]) for place in places], "weights", "level")]
    if step.block_before is not None and step.block_after is not None:
        for values, label, colour in (
            (step.block_before, "stored", "a"),
            (step.block_after, "beside the outlier", "b"),
        ):
            traces.append(dots(places, [float(values[place]) for place in places], label, colour))
    sketch.show("block", traces)


def draw_harm(step: MicroscopeStep, sketch: Sketch) -> None:
    """The error of every block; after the weight has grown, the blocks that stand out."""
    before = [float(error) for error in step.errors_before]
    numbers = list(range(step.first_block, step.first_block + len(before)))
    traces = [curve(numbers, before, "before", "a")]
    if step.errors_after is not None:
        after = [float(error) for error in step.errors_after]
        worse = [
            (number, error) for number, error, was in zip(numbers, after, before, strict=True) if error > 1.5 * was
        ]
        traces.append(dots([number for number, _ in worse], [error for _, error in worse], "the outlier's block", "b"))
    sketch.show("harm", traces)


def draw_used(step: MicroscopeStep, sketch: Sketch) -> None:
    count = len(step.levels or step.occupancy)
    numbers = list(range(1, count + 1))
    traces = [curve([1, count], [100 / count, 100 / count], "even", "level", dash=True)]
    if step.occupancy:
        here, noise = ([100 * share for share in shares] for shares in (step.occupancy, step.noise_occupancy))
        few = count <= 16
        traces.append(columns(numbers, here, "layer", "a") if few else curve(numbers, here, "layer", "a"))
        traces.append(columns(numbers, noise, "noise", "b") if few else curve(numbers, noise, "noise", "b"))
    sketch.show("used", traces)


def draw_price(step: MicroscopeStep, sketch: Sketch) -> None:
    """Constants and tables, by the formula and weighed; the codes themselves would dwarf them."""
    traces = bars(
        [name for name, _ in step.formula], [bits for _, bits in step.formula], label="formula", colour="level"
    )
    if step.weighed:
        kept = step.weighed[1:]
        names = [name for name, *_ in kept]
        traces += bars(names, [here for _, _, here, _ in kept], label="layer", colour="a")
        traces += bars(names, [noise for *_, noise in kept], label="noise, 1024 x 1024", colour="b")
    sketch.show("price", traces)
