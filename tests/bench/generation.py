"""Generation speed with a key-value cache, ours and transformers', the same GPT-2 weights. python -m
tests.bench.generation

Batch 1, 200 new characters behind a prompt of 16, context 256, temperature 0.8, top-k 40; then beam search with 4 beams.
First both write greedily, and by beam search, and must write the same. Goal (two CPU cores): 2 times as fast at the size of nanoGPT's CPU preset.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median

import torch

from core.foundations.sampling import Choice, write
from core.foundations.transformer import Shape, Transformer
from core.foundations.weights import from_gpt2
from core.nanogpt.beams import beam_search
from tests.bench.ledger import Line, in_turns, options, ratio, report, with_threads
from tests.bench.peers import PRESET, Preset, gpt2

VOCABULARY, CONTEXT, PROMPT, NEW, BEAMS = 65, 256, 16, 200, 4
SIZES = {"4 layers of 128": PRESET, "6 layers of 384": replace(PRESET, n_layer=6, n_head=6, width=384)}


def the_same_model_twice(preset: Preset) -> tuple[Transformer, torch.nn.Module]:
    torch.manual_seed(0)
    theirs = gpt2(
        VOCABULARY, CONTEXT, preset, std=0.1
    ).eval()  # GPT-2's 0.02 leaves all characters nearly equal: greedy would be a matter of rounding
    ours = Transformer(
        Shape(VOCABULARY, preset.n_layer, preset.n_head, preset.width, CONTEXT, "gpt2", bias=True, tied=True)
    ).eval()
    ours.load_state_dict(
        from_gpt2(
            {name.removeprefix("transformer."): weight for name, weight in theirs.state_dict().items()}, preset.n_layer
        )
    )
    return ours, theirs


def compare(preset: Preset, rounds: int) -> dict[str, list[float]]:
    ours, theirs = the_same_model_twice(preset)
    prompt = torch.randint(VOCABULARY, (1, PROMPT), generator=torch.Generator().manual_seed(0))

    def write_ours(choice: Choice) -> list[int]:
        return [drawn.token for drawn in write(ours, prompt[0].tolist(), NEW, choice, torch.Generator().manual_seed(0))]

    def write_theirs(choice: Choice) -> list[int]:
        sampling = (
            {"do_sample": True, "temperature": choice.temperature, "top_k": choice.top_k}
            if choice.temperature
            else {"do_sample": False}
        )
        written = theirs.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=NEW,
            use_cache=True,
            pad_token_id=0,
            **sampling,
        )
        return written[0, PROMPT:].tolist()

    def search_ours() -> list[int]:
        return list(beam_search(ours, prompt[0].tolist(), NEW, BEAMS))[-1].tokens[0].tolist()

    def search_theirs() -> list[int]:
        written = theirs.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            num_beams=BEAMS,
            do_sample=False,
            max_new_tokens=NEW,
            eos_token_id=None,
            pad_token_id=0,
            length_penalty=0.0,
        )
        return written[0, PROMPT:].tolist()

    if search_ours() != search_theirs():
        sys.exit("beam searches differ: the two do not compute the same, so their speeds are not compared")
    greedy = Choice(0.0)
    if write_ours(greedy) != write_theirs(greedy):
        sys.exit("greedy texts differ: the two do not compute the same, so their speeds are not compared")

    def speed(writer: Callable[[], list[int]]) -> Callable[[], float]:
        def measure() -> float:
            started = time.perf_counter()
            return len(writer()) / (time.perf_counter() - started)

        return measure

    drawn = Choice(0.8, top_k=40)
    contestants = {
        "ours": speed(lambda: write_ours(drawn)),
        "transformers": speed(lambda: write_theirs(drawn)),
        "our beams": speed(search_ours),
        "their beams": speed(search_theirs),
    }
    in_turns(1, contestants)  # warm
    return in_turns(rounds, contestants)


def main() -> None:
    arguments = with_threads(options(__doc__))
    lines, rounds = [], 2 if arguments.quick else 11
    for name, preset in list(SIZES.items())[: 1 if arguments.quick else None]:
        measured = compare(preset, rounds)
        times = ratio(measured["ours"], measured["transformers"])
        goal = ("at least 2", times >= 2) if preset is PRESET else ("", None)
        lines.append(
            Line(
                f"generation, {name}",
                "characters/s",
                median(measured["ours"]),
                median(measured["transformers"]),
                times,
                *goal,
            )
        )
        beams = measured["our beams"], measured["their beams"]
        what = f"beam search, {BEAMS} beams, {name}"
        lines.append(Line(what, "characters/s", median(beams[0]), median(beams[1]), ratio(*beams)))
    report("generation", lines, arguments, rounds=rounds)


if __name__ == "__main__":
    main()
