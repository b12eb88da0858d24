"""The picture of `blend`: two walks in a player, and all pictures of each beside one another."""

from core.dalle2.blend import BlendConfig, BlendStep, Walk
from pages._kit.charts import Panel, Sketch, axis, chart, curve, dots, picture
from pages._kit.player import player, view

ENDS = [("a", "the first picture"), ("b", "the second")]


def blend_panels(config: BlendConfig) -> list[Panel]:
    layouts = []
    for farthest in (1.0, config.farthest):
        layout = chart(axis("way", "share"), axis("cosine", "1 is the same"))
        layout["yaxis"] |= {"range": [-1.05, 1.08]}
        layout["xaxis"] |= {"range": [-0.03 * farthest, 1.03 * farthest]}
        layouts.append(layout)
    film = [
        view("now", "pictures", "Between the pictures; toward the words", span=4, most=210, least=120),
        view("arc", "plot", "Cosine with each picture", span=4, layout=layouts[0], height=290, legend=ENDS),
        view(
            "drift",
            "plot",
            "Cosine with the picture and with the words",
            legend=[("a", "the first picture"), ("b", "the words' direction")],
            span=4,
            layout=layouts[1],
            height=290,
        ),
    ]
    return [
        view("ends", "pictures", "The two pictures", span=3, most=110, least=90),
        view(
            "between",
            "pictures",
            "Every point of the arc between them, decoded from the same noise",
            span=9,
            most=96,
            least=52,
        ),
        view(
            "words",
            "pictures",
            f"The first picture, toward '{config.words_to[:40]}', away from '{config.words_from[:40]}'",
            most=96,
            least=52,
        ),
        player(
            "film",
            "Cosines on the way: lines for the arc, dots for its pictures, encoded again",
            film,
            scrub="fraction of the way",
            rate=3,
        ),
    ]


def draw_blend(step: BlendStep, sketch: Sketch) -> None:
    if step.ends is None or step.between is None or step.words is None:
        return
    if not step.between.seen:
        sketch.show(
            "ends",
            {
                "columns": 2,
                "pictures": [
                    picture(one, f"{name}", under=" ".join(seen), mark=mark)
                    for one, name, seen, mark in zip(step.ends, ("first", "second"), step.sees, "ab", strict=True)
                ],
            },
        )
    if not step.words.seen:
        sketch.show("between", row(step.between))
    sketch.show("words", row(step.words, step.weights))
    sketch.film("film", [frame(step, number) for number in range(len(step.between.shares))])


def row(walk: Walk, weights: tuple[float, ...] = ()) -> dict[str, object]:
    """All pictures of a walk, with what the judge sees in each."""
    names = [weight_name(weight) for weight in weights] or [f"{share:.2f}" for share in walk.shares]
    under = [" ".join(seen) for seen in walk.seen] if walk.seen else [" "] * len(names)
    return {
        "columns": len(names),
        "pictures": [picture(one, name, under=told) for one, name, told in zip(walk.pixels, names, under, strict=True)],
    }


def weight_name(weight: float) -> str:
    return f"w = {weight:.2f}" if weight < 100 else "w = ∞"


def cosines(walk: Walk, count: int) -> list[dict[str, object]]:
    """The arc as lines; the decoded pictures, encoded again, as dots up to here."""
    shares = [round(share, 3) for share in walk.shares]
    traces = [curve(shares, list(walk.arc_a), "arc, first", "a"), curve(shares, list(walk.arc_b), "arc, goal", "b")]
    if walk.to_a:
        traces += [
            dots(shares[:count], list(walk.to_a[:count]), "first", "a"),
            dots(shares[:count], list(walk.to_b[:count]), "goal", "b"),
        ]
    return traces


def frame(step: BlendStep, number: int) -> tuple[str, dict[str, object]]:
    between, words = step.between, step.words
    assert between is not None and words is not None
    told = []
    for walk, name in ((between, f"share {between.shares[number]:.2f}"), (words, weight_name(step.weights[number]))):
        under = " ".join(walk.seen[number]) if walk.seen else walk.named[number]
        told.append(picture(walk.pixels[number], name, under=under))
    views: dict[str, object] = {
        "now": {"columns": 2, "pictures": told},
        "arc": cosines(between, number + 1),
        "drift": cosines(words, number + 1),
    }
    return f"share {between.shares[number]:.2f}", views
