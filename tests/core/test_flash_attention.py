"""FlashAttention: tiles equal SDPA whatever their size, m and l equal logsumexp, traffic equals the formulas, what
breaks is what should.
"""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from core.flash_attention import RescaleConfig, TilesConfig, rescale, tiles
from core.flash_attention.lesson import LESSON
from core.flash_attention.rescale import OVERFLOW, WRONG_ROWS
from core.flash_attention.sentence import SENTENCE, gpt, head_of, token_ids
from core.flash_attention.tiles import MOVED_STANDARD, MOVED_TILES, RESCALED
from core.flash_attention.tiling import (
    Blocks,
    SlowMemory,
    Tile,
    absorb,
    attend_in_full,
    attend_in_tiles,
    blocks_by_rule,
    fast_numbers,
    full_traffic,
    nothing_seen,
    pieces,
    scores_of,
    tiled_traffic,
    tiles_of,
)
from core.foundations.experiment import find
from core.foundations.figures import by_figure
from core.foundations.lesson import Ask, takeaways, verdict
from core.foundations.recorder import Recorder, drain
from core.foundations.transformer import Cache

sizes = st.tuples(st.integers(1, 70), st.sampled_from([2, 8, 16, 33]))
blocks = st.builds(Blocks, st.integers(1, 80), st.integers(1, 80))
orders = st.sampled_from(["keys", "queries"])


def normal(*shape, seed=0, scale=1.0):
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def memory_of(length, width, seed=0, heads=()):
    return SlowMemory(**{name: normal(*heads, length, width, seed=seed + place) for place, name in enumerate("QKV")})


def exact(memory, causal):
    return F.scaled_dot_product_attention(*(memory.tensors[name].double() for name in "QKV"), is_causal=causal)


def figures_of(steps):
    return by_figure(result for step in steps for result in step.figures)


# --- the algorithm ----------------------------------------------------------------------------------------------------


@given(sizes, blocks, st.booleans(), orders, st.integers(0, 2**31 - 1))
def test_tiles_of_any_size_equal_sdpa(size, tile, causal, order, seed):
    memory = memory_of(*size, seed=seed)
    list(attend_in_tiles(memory, tile, causal, order))
    torch.testing.assert_close(memory.tensors["O"].double(), exact(memory, causal), rtol=1e-4, atol=2e-5)


@given(sizes, blocks, st.booleans(), orders)
def test_m_and_l_equal_logsumexp(size, tile, causal, order):
    memory, whole = memory_of(*size), slice(0, size[0])
    last = {}
    for done, running in attend_in_tiles(memory, tile, causal, order):
        last[done.rows.start] = running
    row_max, row_sum = (
        torch.cat([getattr(last[first], name) for first in sorted(last)])[:, 0] for name in ("row_max", "row_sum")
    )
    scores = scores_of(memory.tensors["Q"], memory.tensors["K"], Tile(whole, whole), causal)
    torch.testing.assert_close(row_max, scores.amax(1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(row_max + row_sum.log(), scores.logsumexp(1), rtol=1e-5, atol=1e-5)
    kept = memory.tensors["L"][:, 0] if order == "queries" else (memory.tensors["m"] + memory.tensors["l"].log())[:, 0]
    assert torch.equal(kept, row_max + row_sum.log())


@given(sizes, blocks, st.booleans(), orders)
def test_every_partial_output_is_exact_for_the_keys_seen(size, tile, causal, order):
    memory = memory_of(*size)
    q, k, v = (memory.tensors[name] for name in "QKV")
    seen = torch.zeros(size[0], size[0], dtype=torch.bool)
    past = torch.ones_like(seen).tril() if causal else torch.ones_like(seen)
    for done, running in attend_in_tiles(memory, tile, causal, order):
        seen[done.rows, done.keys] = True
        wanted = F.scaled_dot_product_attention(
            q[done.rows].double(), k.double(), v.double(), attn_mask=(seen & past)[done.rows]
        )
        torch.testing.assert_close((running.out / running.row_sum).double(), wanted, rtol=1e-4, atol=2e-5)


@given(st.permutations(list(range(5))), st.booleans())
def test_the_keys_may_come_in_any_order_and_large_scores_do_no_harm(order, huge):
    q, k, v = (normal(*shape, seed=seed) for seed, shape in enumerate([(7, 8), (20, 8), (20, 8)]))
    scores = q @ k.T * (40.0 if huge else 1.0)
    running, parts = nothing_seen(q), pieces(20, 4)
    for place in order:
        running = absorb(running, scores[:, parts[place]], v[parts[place]])
    torch.testing.assert_close(running.out / running.row_sum, torch.softmax(scores, 1) @ v, rtol=1e-4, atol=1e-5)


def test_without_the_line_rows_whose_max_rises_are_wrong_and_only_they():
    q, v = normal(2, 4), normal(6, 4, seed=1)
    scores = torch.tensor([[3.0, 0, 1, 2, 0, 1], [0.0, 1, 2, 5, 1, 0]])  # the second row's max rises in its second tile
    right, wrong = nothing_seen(q), nothing_seen(q)
    for part in pieces(6, 3):
        right, wrong = absorb(right, scores[:, part], v[part]), absorb(wrong, scores[:, part], v[part], rescaling=False)
    error = (right.out / right.row_sum - wrong.out / wrong.row_sum).abs().amax(1)
    assert error[0] == 0 and error[1] > 0.05


@given(sizes, blocks, st.booleans(), orders)
def test_tiles_cover_what_counts_once(size, tile, causal, order):
    counts = torch.zeros(size[0], size[0])
    for one in tiles_of(size[0], tile, causal, order):
        counts[one.rows, one.keys] += 1
    assert counts.max() == 1
    assert (counts.tril() == torch.ones_like(counts).tril()).all() and (causal or counts.min() == 1)


def test_heads_and_batches_pass_through():
    memory = memory_of(40, 8, heads=(2, 3))
    list(attend_in_tiles(memory, Blocks(16, 8), True, "queries"))
    torch.testing.assert_close(memory.tensors["O"].double(), exact(memory, True), rtol=1e-4, atol=2e-5)


# --- blocks and traffic -----------------------------------------------------------------------------------------------


def test_the_paper_s_rule():
    assert blocks_by_rule(51_200, 64) == Blocks(64, 200)
    assert blocks_by_rule(2048, 32) == Blocks(16, 16)
    assert blocks_by_rule(1, 32) == Blocks(1, 1)
    for numbers in (100, 2048, 51_200):
        tile = blocks_by_rule(numbers, 64)
        assert (
            fast_numbers(tile, 10**6, 64) <= 1.3 * numbers + 10 * 64
        )  # four blocks fill M; scores, m and l come on top


@given(sizes, blocks, st.booleans(), orders)
def test_what_is_moved_is_what_the_formulas_say(size, tile, causal, order):
    tiled, full = memory_of(*size), memory_of(*size)
    list(attend_in_tiles(tiled, tile, causal, order))
    attend_in_full(full, causal)
    assert tiled.moved == tiled_traffic(*size, tile, causal, order)
    assert full.moved == full_traffic(*size) == 4 * size[0] * size[1] + 4 * size[0] ** 2
    torch.testing.assert_close(full.tensors["O"].double(), exact(full, causal), rtol=1e-4, atol=2e-5)


def test_traffic_at_the_size_of_a_gpu():
    told = [(full_traffic(n, 64), tiled_traffic(n, 64, blocks_by_rule(51_200, 64), False)) for n in (1024, 4096, 16384)]
    assert told[0] == (4_456_448, 1_335_296)
    assert [round(full / tiled, 2) for full, tiled in told] == [3.34, 3.92, 4.06]


# --- real queries, keys and values ------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [1, 4, 6])
def test_they_are_the_gpt_s_own(layer):
    """Against the model's cache, which holds k and v, and its attention maps, which hold what q does."""
    ids, maps, model = torch.tensor([token_ids(SENTENCE)]), [], gpt()
    cache = Cache(model.shape, 1, 128, model.embed.weight)
    with torch.no_grad():
        model(ids, cache, maps)
    for number in range(1, 6):
        head = head_of(SENTENCE, layer, number)
        assert torch.equal(head.k, cache.buffer[layer - 1, 0, 0, number - 1, : len(SENTENCE)])
        assert torch.equal(head.v, cache.buffer[layer - 1, 1, 0, number - 1, : len(SENTENCE)])
        whole = slice(0, len(SENTENCE))
        weights = torch.softmax(scores_of(head.q, head.k, Tile(whole, whole), True), 1)
        torch.testing.assert_close(weights, maps[layer - 1][0, number - 1])


def test_characters_it_does_not_know_get_one_sentence(refusal):
    told = refusal(lambda: next(tiles(TilesConfig(text="naïve 中中 attention"))))
    assert told == "text may hold only the 103 characters the GPT has learned, and it does not know 'ï', '中'"
    assert refusal(lambda: next(rescale(RescaleConfig(text="naïve attention in tiles")))).endswith("does not know 'ï'")


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (
            lambda: TilesConfig(text=""),
            "text must be at least 2 characters, got 0: with one there is nothing to attend to",
        ),
        (lambda: TilesConfig(text="x" * 129), "text must be at most 128 characters, got 129"),
        (lambda: TilesConfig(blocks="own", tile_keys=0), "tile_keys must be at least 1 key, got 0"),
        (
            lambda: TilesConfig(text="a short one", blocks="own", tile_rows=12, tile_keys=4),
            "tile_rows must be at most the text's 11 characters, got 12",
        ),
        (
            lambda: TilesConfig(text="a short one", blocks="own", tile_rows=4, tile_keys=12),
            "tile_keys must be at most the text's 11 characters, got 12",
        ),
        (lambda: RescaleConfig(text="a short one"), "tile_keys must be at most the text's 11 characters, got 16"),
        (lambda: TilesConfig(sram=0), "sram must be at least 1, got 0"),
    ],
)
def test_bad_tiles_and_texts_get_their_sentence(made, told, refusal):
    assert refusal(made) == told


def test_a_large_fast_memory_holds_a_short_text_in_one_tile():
    steps = list(tiles(TilesConfig(text="a short one", sram=16)))
    assert steps[0].tiles == 1 and steps[-1].to_seen[-1] < 1e-5


# --- the experiments --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"causal": False, "order": "queries"},
        {"sram": 1},
        {"blocks": "own", "tile_rows": 7, "tile_keys": 40, "order": "queries"},
    ],
)
def test_the_film_ends_in_the_exact_output(settings):
    steps = list(tiles(TilesConfig(**settings)))
    first, last = steps[0], steps[-1]
    assert first.done == 0 and not first.out.any() and np.isneginf(first.row_max).all() and first.moved == 0
    assert last.done == last.tiles and len(steps) <= 80
    np.testing.assert_allclose(last.out, last.exact, atol=1e-4 * abs(last.exact).max())
    np.testing.assert_allclose(last.row_max + last.log_sum, last.last_max + last.last_log_sum, atol=1e-5)
    np.testing.assert_allclose(np.log(last.weights.sum(1)), last.log_sum, atol=1e-4)  # the colours of a row add up to l
    assert max(last.to_seen) < 1e-4 < max(last.to_last[:-1])
    figures = figures_of(steps)
    assert figures[MOVED_TILES].gap == 0 == figures[MOVED_STANDARD].gap
    assert figures[RESCALED].measured > 0


def test_steps_are_snapshots():
    """A later tile does not change what an earlier Step shows."""
    run = tiles(TilesConfig())
    first, second = next(run), next(run)
    kept = second.out.copy()
    list(run)
    assert not first.out.any() and np.array_equal(second.out, kept)


def test_the_same_settings_give_the_same_run():
    for run, config in ((tiles, TilesConfig()), (rescale, RescaleConfig(numbers="float16"))):
        one, two = list(run(config)), list(run(config))
        assert repr([step.plain() for step in one]) == repr([step.plain() for step in two])


@pytest.mark.parametrize("numbers", ["float32", "float16", "bfloat16"])
def test_rescale_breaks_what_it_says_and_nothing_else(numbers):
    steps = list(rescale(RescaleConfig(numbers=numbers)))
    last, figures = steps[-1], figures_of(steps)
    right = ~last.risen
    assert 0 < right.sum() < len(right)
    assert (
        last.error_wrong[right] == last.error_right[right]
    ).all()  # where the max never rose, the line multiplies by 1
    assert (
        last.error_wrong.max() > 0.3
        and last.error_right.max() < {"float32": 1e-5, "float16": 5e-3, "bfloat16": 5e-2}[numbers]
    )
    wrong = figures[WRONG_ROWS]
    assert abs(wrong.gap) <= 0.1 * len(right)
    assert figures[OVERFLOW].gap == pytest.approx(0, abs=0.6 if numbers == "bfloat16" else 0.02)


def test_a_hundred_more_breaks_the_textbook_and_spares_the_online_softmax():
    last = list(rescale(RescaleConfig(shift=100.0)))[-1]
    table = {way: dict(zip(("float32", "float16", "bfloat16"), errors, strict=True)) for way, errors in last.table}
    assert all(math.isnan(error) for error in table["textbook"].values())
    assert table["online"]["float32"] < 1e-4
    assert (
        table["mixed"]["float16"] < table["online"]["float16"] / 5
    )  # scores in 16 bits have lost their differences near 100
    calm = list(rescale(RescaleConfig(shift=0.0)))[-1]
    assert dict(calm.table)["textbook"][0] < 1e-4


# --- the lesson -------------------------------------------------------------------------------------------------------

ASKS = [step for step in LESSON.steps if isinstance(step, Ask)]
RIGHT = (
    "only rounding",
    "no, more",
    "those whose maximum rose after the first tile",
    "only the online softmax",
    "it doubles",
)


@pytest.mark.parametrize(("ask", "answer"), zip(ASKS, RIGHT, strict=True), ids=lambda part: str(part)[:30])
def test_the_questions_are_decided_by_the_run(ask, answer):
    index, because = verdict(ask, outcome_of(ask))
    assert ask.answers[index] == answer and because.endswith(".")


def outcome_of(ask):
    experiment = find("flash_attention", ask.experiment)
    fewer = {"most_n": 512, "repeats": 1} if ask.experiment == "race" else {}
    recorder = Recorder(experiment, experiment.config_type(**{**ask.settings, **fewer}))
    return drain(experiment.run(recorder.config), recorder).outcome


def test_what_was_seen_follows_the_numbers():
    """The sentences change their claim with the run: large tiles save traffic, tiny ones cost it."""

    def said(run, config):
        experiment = find("flash_attention", run)
        return takeaways(experiment, drain(experiment.run(config), Recorder(experiment, config)).outcome)

    assert "save traffic" in said("tiles", TilesConfig(sram=16))[2]
    assert "cost traffic" in said("tiles", TilesConfig(sram=1))[2]
    assert "gave no number" in said("rescale", RescaleConfig(shift=100.0))[1]
    calm = said("rescale", RescaleConfig(shift=0.0))
    assert "still worked" in calm[1] and "never sees" in calm[2]
    assert "with scores and sums in 32 bits" in said("rescale", RescaleConfig(numbers="bfloat16"))[2]
