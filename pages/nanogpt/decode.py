"""The picture of `decode`: the bars of one place as a film of rules, five texts, and what was measured of them."""

from collections.abc import Mapping

from core.nanogpt.decoding import UNSEEN, WAYS, DecodeConfig, DecodeStep, repeats
from pages._kit.charts import Panel, Sketch, axis, bars, ranking, text, visible
from pages._kit.player import player, view

MARKED = {"legend": [("b", "two words that stood before", "pale")]}
SPANS = {"greedy": 4, "penalty": 4, "beam": 4, "draw": 6, "yours": 6}


def decode_panels(config: DecodeConfig) -> list[Panel]:
    place = ranking(axis("probability", "of 1"), axis("next token", "symbol"), legend=True, left=56)
    surprisal = ranking(axis("surprisal", "nats/token"), axis("", ""), left=150)
    again = ranking(axis("pairs that stood before", "%"), axis("", ""), left=150)
    film = [
        view("rule", "text", "What the rule does", span=4, height=150, prose=True),
        view("place", "plot", "The next token: the model's probabilities, and after the rule", span=8,
             layout=place, height=300, steady=True),
    ]  # fmt: skip
    return [
        player("rules", "", film, scrub="rule", rate=0.5, bar_before=0),
        *(text(f"text_{way}", name.capitalize(), span=SPANS[way], height=165) | MARKED for way, name in WAYS.items()),
        view("surprisal", "plot", "How probable the text is: the shorter, the more", span=6,
             layout=surprisal, height=205),
        view("again", "plot", "How much it repeats itself", span=6, layout=again, height=205),
    ]  # fmt: skip


def draw_decode(step: DecodeStep, sketch: Sketch) -> None:
    if step.stage:
        names = [visible(symbol) for symbol in step.symbols]
        place = bars(names, step.before, label="the model", colour="level")
        place += bars(names, step.after, label="now", colour="a")
        sketch.frame("rules", step.stage, rule=step.says, place=place)
    if step.way:
        sketch.text(f"text_{step.way}", step.text, repeats(step.text))
    if step.measured:
        names = [line.name for line in step.measured]
        sketch.show("surprisal", bars(names, [line.surprisal for line in step.measured], UNSEEN))
        sketch.show("again", bars(names, [100 * line.repeated for line in step.measured], UNSEEN))


def lit_decode(step: DecodeStep) -> Mapping[str, str]:
    return {step.part: ""} if step.part else {}
