"""KV caching: cached, uncached and transformers' own give the same; bytes by formula; windows, rounding, poison; the
real models.
"""

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.foundations import real_model
from core.foundations.base_model import FOLDER, from_folder
from core.foundations.corpus import load_corpus
from core.foundations.experiment import config_of
from core.foundations.lesson import Ask, takeaways, verdict
from core.foundations.recorder import Recorder, drain
from core.foundations.turns import with_pauses, without_pauses
from core.kv_cache import BigConfig, GrowConfig, ShrinkConfig, big, grow, shrink
from core.kv_cache.big import step_seconds, texts_that_fit, tokens_that_fit
from core.kv_cache.cache import Growing, Rounded, Window, storage_bytes
from core.kv_cache.costs import bytes_per_token, model_bytes_per_token, work
from core.kv_cache.grow import CACHE, RATE, SAME_TOKENS
from core.kv_cache.lesson import LESSON
from core.kv_cache.llama import llama_of, logits, pooled, rotate
from core.kv_cache.poison import poison, tokens_of_word
from core.kv_cache.published import CARDS, MODELS
from core.kv_cache.scaled import weighed
from core.kv_cache.shrink import FULL, PERPLEXITY
from core.kv_cache.uptraining import uptrain
from core.kv_cache.variants import Runner, binned, greedy, loss_in_one_pass, perplexity, rounded, whole, window

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "kv_cache.json").read_text())
CLOSE = {"rtol": 1e-4, "atol": 5e-5}  # logits reach 20: a few last digits of float32


@pytest.fixture(scope="module")
def base():
    return from_folder(FOLDER, "shipped")


@pytest.fixture(scope="module")
def model(base):
    return llama_of(base.model)


@pytest.fixture(scope="module")
def text(base):
    return base.ids(load_corpus("reader").validation)[None, :96]


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


def small(kept_heads, **more):
    """A Llama of transformers with every weight random, and ours with the same weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "head_dim": 8,
    }
    theirs = LlamaForCausalLM(LlamaConfig(vocab_size=50, num_key_value_heads=kept_heads, **sizes, **more)).eval()
    rng = torch.Generator().manual_seed(1)
    for weight in theirs.parameters():
        weight.copy_(torch.randn(weight.shape, generator=rng) * 0.3 + (weight.ndim == 1))
    return theirs, llama_of(theirs)


def token_by_token(model, text, cache):
    return torch.cat([logits(model, text[:, place : place + 1], cache) for place in range(text.shape[1])], 1)


# --- the same logits, whatever the way --------------------------------------------------------------------------------


def test_ours_is_transformers_without_a_cache(base, model, text):
    torch.testing.assert_close(logits(model, text), base.model(input_ids=text, use_cache=False).logits, **CLOSE)


def test_cached_is_uncached_is_transformers_cache(base, model, text):
    """A prompt at once, then token by token, next to DynamicCache given the same pieces."""
    from transformers import DynamicCache

    ours, theirs = Growing(model, 16), DynamicCache(config=base.model.config)
    got, wanted = [], []
    for piece in (text[:, :40], *text[:, 40:].split(1, 1)):
        got.append(logits(model, piece, ours))
        wanted.append(base.model(input_ids=piece, past_key_values=theirs, use_cache=True).logits)
    torch.testing.assert_close(torch.cat(got, 1), torch.cat(wanted, 1), **CLOSE)
    torch.testing.assert_close(torch.cat(got, 1), logits(model, text), **CLOSE)
    for number, layer in enumerate(theirs.layers):  # what is kept is the same, too
        torch.testing.assert_close(ours.buffers[number][0, :, :, : ours.seen], layer.keys, **CLOSE)
        torch.testing.assert_close(ours.buffers[number][1, :, :, : ours.seen], layer.values, **CLOSE)


@given(
    cuts=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    block=st.integers(1, 20),
    kept_heads=st.sampled_from([1, 2, 4]),
)
def test_any_pieces_and_blocks_give_the_same(cuts, block, kept_heads):
    _, ours = small(kept_heads)
    words = torch.randint(50, (2, sum(cuts)), generator=torch.Generator().manual_seed(0))
    cache = Growing(ours, block)
    got = torch.cat([logits(ours, piece, cache) for piece in words.split(cuts, 1)], 1)
    torch.testing.assert_close(got, logits(ours, words), **CLOSE)
    assert cache.seen == sum(cuts)
    assert cache.nbytes == -(-sum(cuts) // block) * block * 2 * model_bytes_per_token(ours)


@pytest.mark.parametrize("kept_heads", [4, 2, 1])
def test_heads_that_share_are_those_of_transformers(kept_heads):
    theirs, ours = small(kept_heads)
    words = torch.arange(30)[None]
    assert (ours.heads, ours.kept_heads) == (4, kept_heads)
    torch.testing.assert_close(logits(ours, words), theirs(input_ids=words, use_cache=False).logits, **CLOSE)


@pytest.mark.parametrize("groups", [3, 2, 1])
def test_pooled_heads_are_means_of_neighbours(model, groups):
    for before, after in zip(model.layers, pooled(model, groups).layers, strict=True):
        heads = before.k.view(6, 32, 192)
        torch.testing.assert_close(after.k.view(groups, 32, 192)[0], heads[: 6 // groups].mean(0))
        assert after.v.shape == (groups * 32, 192) and after.q is before.q


def test_pooling_equal_heads_changes_nothing():
    _, ours = small(4)
    alike = [
        dataclasses.replace(layer, k=layer.k[:8].repeat(4, 1), v=layer.v[:8].repeat(4, 1)) for layer in ours.layers
    ]
    alike = dataclasses.replace(ours, layers=tuple(alike))
    words = torch.arange(20)[None]
    torch.testing.assert_close(logits(pooled(alike, 1), words), logits(alike, words), **CLOSE)


def test_changing_a_later_token_changes_no_row_before_it(model, text):
    """Why rows may be kept at all."""
    other = text.clone()
    other[0, -1] = (other[0, -1] + 1) % 1024
    caches = [Growing(model, 1), Growing(model, 1)]
    for words, cache in zip((text, other), caches, strict=True):
        logits(model, words, cache)
    for one, two in zip(*(cache.buffers for cache in caches), strict=True):
        torch.testing.assert_close(one[..., :-1, :], two[..., :-1, :], **CLOSE)
        assert not torch.allclose(one[..., -1, :], two[..., -1, :])


def test_rewinding_writes_over_the_old_rows(model, text):
    cache = Growing(model, 8)
    logits(model, text[:, :20], cache)
    first = logits(model, text[:, 20:21], cache)
    cache.rewind(20)
    torch.testing.assert_close(logits(model, text[:, 20:21], cache), first, rtol=0, atol=0)
    assert cache.seen == 21


# --- windows, sinks and bits ------------------------------------------------------------------------------------------


def test_the_window_is_that_of_mistral(base, model, text):
    """Mistral is Llama with a sliding window: the same weights, the same window, the same logits."""
    from transformers import MistralConfig, MistralForCausalLM

    told = base.model.config.to_dict()
    kept = (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "rms_norm_eps",
    )
    theirs = MistralForCausalLM(MistralConfig(**{name: told[name] for name in kept}, sliding_window=24)).eval()
    theirs.load_state_dict(base.model.state_dict())
    got = token_by_token(model, text, Window(model, 24))
    torch.testing.assert_close(got, theirs(input_ids=text, use_cache=False).logits, **CLOSE)
    assert (got[:, 24:] - logits(model, text)[:, 24:]).abs().max() > 0.1  # and it is not the full cache


@pytest.mark.parametrize("sinks", [0, 4])
def test_a_window_that_holds_all_is_the_full_cache(model, text, sinks):
    torch.testing.assert_close(token_by_token(model, text, Window(model, 96, sinks)), logits(model, text), **CLOSE)


def test_sinks_stand_right_before_the_window():
    """With one layer: attention over the first 2 and the last 4 tokens, as if they were the 6 tokens of a text."""
    _, ours = small(4)
    ours = dataclasses.replace(ours, layers=ours.layers[:1])
    words = torch.randint(50, (1, 30), generator=torch.Generator().manual_seed(0))
    got = token_by_token(ours, words, Window(ours, 6, 2))[0, -1]
    near = torch.cat((words[:, :2], words[:, -4:]), 1)
    torch.testing.assert_close(got, logits(ours, near)[0, -1], **CLOSE)


@given(size=st.integers(1, 12), tokens=st.integers(1, 30))
def test_a_window_never_holds_more(size, tokens):
    _, ours = small(2)
    cache = Window(ours, size, min(1, size - 1))
    token_by_token(ours, torch.arange(tokens)[None] % 50, cache)
    assert cache.nbytes == min(tokens, size) * model_bytes_per_token(ours) and cache.seen == tokens


def test_turns_add_up(model):
    from core.kv_cache.llama import angles

    rows = torch.randn((1, 1, 1, 32), generator=torch.Generator().manual_seed(0))
    twice = rotate(rotate(rows, angles(model, 3, 1)), angles(model, 2, 1))
    torch.testing.assert_close(twice, rotate(rows, angles(model, 5, 1)))


@given(bits=st.sampled_from([4, 8]), scale=st.floats(1e-3, 1e3), seed=st.integers(0, 99))
def test_rounding_is_off_by_half_a_step_at_most(bits, scale, seed):
    _, ours = small(4)
    rows = torch.randn((1, 4, 3, 8), generator=torch.Generator().manual_seed(seed)) * scale
    cache = Rounded(ours, bits)
    keys, values = cache.add(0, rows, -rows)
    step = rows.abs().amax(-1, keepdim=True) / (127 if bits == 8 else 7)
    assert ((keys - rows).abs() <= 0.503 * step).all()  # the scale itself is rounded to 16 bits
    torch.testing.assert_close(values, -keys, rtol=0, atol=0)


@pytest.mark.parametrize(("bits", "bytes_of_row"), [(8, 32 + 2), (4, 16 + 2)])
def test_rounded_bytes_are_those_of_the_formula(model, text, bits, bytes_of_row):
    cache = Rounded(model, bits)
    got = token_by_token(model, text, cache)
    assert cache.nbytes == 2 * 4 * 6 * 96 * bytes_of_row == rounded("", model, bits).nbytes(96)
    error = (got - logits(model, text)).abs().max()
    assert 0 < error < (0.3 if bits == 8 else 8)


# --- bytes, operations, floors ----------------------------------------------------------------------------------------


def test_a_token_of_the_base_leaves_6144_bytes(model, text):
    assert model_bytes_per_token(model) == 2 * 4 * 6 * 32 * 4 == 6144
    cache = Growing(model, 1)
    logits(model, text, cache)
    assert cache.nbytes == 96 * 6144


def test_storages_are_counted_once():
    whole = torch.zeros(10, 10)
    assert storage_bytes([whole, whole[2:], whole.T, torch.zeros(3)]) == 412


def test_operations_are_those_that_torch_counts(model):
    """FlopCounterMode counts the matrices; attention is counted by its own formula."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    cache = Growing(model, 64)
    logits(model, torch.zeros((1, 50), dtype=torch.long), cache)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        logits(model, torch.zeros((1, 1), dtype=torch.long), cache)
    assert work(model, 1, 50).flops == counter.get_total_flops()


@given(new=st.integers(1, 300), seen=st.integers(0, 300), batch=st.integers(1, 64))
def test_one_pass_costs_what_its_tokens_cost_one_by_one(model, new, seen, batch):
    """In operations; in bytes it is cheaper, since the weights are read once."""
    together, single = work(model, new, seen, batch), [work(model, 1, seen + place, batch) for place in range(new)]
    assert together.flops == pytest.approx(sum(one.flops for one in single))
    assert together.nbytes <= sum(one.nbytes for one in single)
    assert together.floor_seconds > 0 and together.intensity > 0


def test_the_cache_saves_half_of_the_square(model):
    """Writing n tokens: n(n+1)/2 passes of a token through the matrices without, n with it."""
    off = sum(work(model, tokens).flops for tokens in range(1, 101))
    matrices = 2 * model.matrices
    assert matrices * 5050 < off < 1.1 * matrices * 5050


# --- the real models --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "nbytes"), GOLDEN["bytes_per_token_16_bit"].items())
def test_published_bytes_per_token(key, nbytes):
    assert MODELS[key].bytes_per_token() == nbytes


@pytest.mark.parametrize(("key", "gib"), GOLDEN["gib_at_4096_tokens"].items())
def test_published_gib_at_4096_tokens(key, gib):
    assert MODELS[key].cache_bytes(4096) / 2**30 == pytest.approx(gib, abs=6e-4)


def test_what_others_have_computed():
    assert MODELS["opt-13b"].cache_bytes(2048) / 1e9 == pytest.approx(GOLDEN["opt_13b_gb_at_2048_tokens"], abs=0.1)
    assert MODELS["llama-2-13b"].cache_bytes(8192) / 1e9 == pytest.approx(6.7109, abs=1e-4)
    told = GOLDEN["kipply_52b"]
    assert bytes_per_token(told["layers"], told["heads"], told["head_width"], 2) == told["bytes_per_token"]
    book = GOLDEN["scaling_book_llama_2_13b_on_8_v5e"]
    for batch, milliseconds in book["step_ms"].items():
        ours = (
            step_seconds(book["weights_gb"], int(batch) * book["cache_gb_of_8192_tokens"], book["gb_per_second"]) * 1e3
        )
        assert ours == pytest.approx(milliseconds, abs=0.01)


@pytest.mark.parametrize("key", MODELS)
def test_transformers_cache_holds_what_the_formula_says(key):
    assert weighed(key, MODELS[key], 20) == MODELS[key].bytes_per_token()


def test_dynamic_cache_of_the_notes():
    from transformers import DynamicCache

    cache = DynamicCache()
    for layer in range(4):
        cache.update(
            torch.zeros((1, 2, 100, 32), dtype=torch.bfloat16),
            torch.zeros((1, 2, 100, 32), dtype=torch.bfloat16),
            layer,
        )
    held = storage_bytes(part for layer in cache.layers for part in (layer.keys, layer.values))
    assert held == GOLDEN["dynamic_cache_4_layers_2_heads_of_32_100_tokens"] == bytes_per_token(4, 2, 32, 2) * 100


@given(
    key=st.sampled_from(list(MODELS)),
    card=st.sampled_from(list(CARDS)),
    cards=st.integers(1, 64),
    batch=st.integers(1, 300),
    context=st.integers(1, 100_000),
)
def test_what_is_said_to_fit_fits_and_one_more_does_not(key, card, cards, batch, context):
    config = BigConfig(model=key, card=card, cards=cards, batch=batch, context=context)
    told, weights = MODELS[key], config.weight_bytes(MODELS[key])
    texts = texts_that_fit(config, told, config.memory_bytes)
    if texts is None:
        assert weights > config.memory_bytes and tokens_that_fit(config, told) == 0
        return
    assert (
        weights + told.cache_bytes(context, texts)
        <= config.memory_bytes
        < weights + told.cache_bytes(context, texts + 1)
    )
    tokens = tokens_that_fit(config, told)
    if math.isfinite(tokens):
        assert (
            weights + told.cache_bytes(tokens, batch)
            <= config.memory_bytes
            < weights + told.cache_bytes(tokens + 1, batch)
        )


# --- the experiments --------------------------------------------------------------------------------------------------


def figures_of(run, config):
    with torch.enable_grad():  # as it is where a run begins
        return drain(run(config), Recorder(run.experiment, config))


def test_both_write_the_same(base):
    config = GrowConfig(length=24, block=8)
    steps = [step for step in grow(config) if step.off_ms is not None]
    assert len(steps) == 24 and all(step.same for step in steps)
    assert 0 < steps[-1].difference < 1e-4
    assert steps[-1].text.startswith(config.prompt) and len(base.ids(steps[-1].text)) >= len(base.ids(config.prompt))
    for step in steps:  # the token just written is not in the cache yet
        assert step.cache_bytes == -(-(step.tokens - 1) // 8) * 8 * 6144


def test_grow_is_the_same_run_again():
    texts = [[step.text for step in grow(GrowConfig(length=12, seed=seed))][-7] for seed in (3, 3, 4)]
    assert texts[0] == texts[1] != texts[2]


def test_grow_ends_with_every_time_beside_its_floor():
    figures = figures_of(grow, GrowConfig(length=6)).figures
    timed = [figure for figure in figures.values() if figure.unit in ("ms", "tokens/s")]
    assert len(timed) == 2 + 5 and all(
        figure.expected and figure.measured and "roofline" in figure.source for figure in timed
    )
    assert figures[SAME_TOKENS].gap == 0


def test_a_real_model_goes_through_the_same_code():
    config = config_of(GrowConfig, {"model": real_model.NAME, "length": 2})
    figures = figures_of(grow, config).figures
    assert figures[SAME_TOKENS].measured == 2 and figures[CACHE].expected == pytest.approx(
        13 * 2 * 30 * 3 * 64 * 4 / 1e3
    )
    assert RATE.of(passes="decode, 16 texts") in figures and RATE.of(passes="decode, 64 texts") not in figures


def test_an_empty_prompt_writes():
    assert figures_of(grow, GrowConfig(prompt="", length=3)).figures[SAME_TOKENS].measured == 3


def shrunk(**more):
    return ShrinkConfig(**({"context": 24, "batch": 2, "length": 6, "steps": 1, "window": 8, "sinks": 2} | more))


def test_shrink_is_the_same_run_again():
    with torch.enable_grad():
        runs = [list(shrink(shrunk())) for _ in range(2)]
    assert [step.plain() for step in runs[0]] == [step.plain() for step in runs[1]]
    assert runs[0][-1].figures == runs[1][-1].figures


def test_what_a_variant_holds_is_its_formula():
    figures = figures_of(shrink, shrunk()).figures
    held = [figure for figure in figures.values() if figure.unit == "kB"]
    assert len(held) == 7 and all(figure.gap == 0 for figure in held)
    full = figures[PERPLEXITY.of(variant=FULL)]
    assert full.measured == pytest.approx(full.expected, rel=1e-5)


def test_a_runner_reads_what_one_pass_reads(model, text):
    runner = Runner(whole("", model), text)
    for _ in range(10):
        runner.read(10)
    assert runner.losses == pytest.approx(loss_in_one_pass(model, text), abs=2e-5) and len(runner.losses) == 95
    assert runner.bytes[-1] == (95, 95 * 6144)


@pytest.mark.parametrize("tokens", [1, 7, 8, 9, 50])
def test_formulas_have_their_corner_at_the_window(model, tokens):
    variant = window("", model, 8)
    assert variant.nbytes(tokens) == 6144 * min(tokens, 8) and variant.corner == 8


def test_bins_and_perplexity():
    assert binned([1.0, 3.0, 5.0], 2) == (2.0, 5.0)
    assert perplexity([math.log(2), math.log(8)]) == pytest.approx(4)


def test_greedy_is_that_of_transformers(base, model):
    prompt = base.ids("The harbour master looked at the")
    theirs = base.model.generate(
        prompt[None], max_new_tokens=16, do_sample=False, pad_token_id=0, attention_mask=torch.ones_like(prompt[None])
    )
    assert list(greedy(model, prompt.tolist(), 16, Growing(model, 4))) == theirs[0, len(prompt) :].tolist()


def test_uptraining_changes_a_copy_and_learns(model):
    shared = pooled(model, 1)
    before = [weight.clone() for weight in vars(shared.layers[0]).values()]
    ids = torch.arange(400) % 50
    losses = []
    with torch.enable_grad():
        trained = without_pauses(with_pauses(uptrain(shared, ids, 6, 0), losses.append))
    losses = [loss for loss in losses if loss is not None]
    assert len(losses) == 6 and losses[-1] < losses[0]
    assert all(torch.equal(one, two) for one, two in zip(before, vars(shared.layers[0]).values(), strict=True))
    assert not torch.equal(trained.layers[0].k, shared.layers[0].k) and not trained.layers[0].k.requires_grad


# --- poison -----------------------------------------------------------------------------------------------------------


def test_poison_touches_only_the_word(base, model):
    ids = base.ids("We did not know what he").tolist()
    look = poison(base, model, ids, "not", 0)
    clean, bad = look.clean.buffers, look.bad.buffers
    places = tokens_of_word(base, ids, "not")
    assert "".join(base.text([ids[place]]) for place in places).strip() == "not" and look.chosen == tuple(places)
    for one, two in zip(clean, bad, strict=True):
        changed = (one != two).flatten(0, 2).any(0).any(-1)
        assert changed.nonzero().flatten().tolist() == places
    assert look.kl > 0 and len(look.harm) == len(ids) - 1 and all(kl >= 0 for _, kl in look.harm)


def test_the_poisoned_word_alone_is_its_own_harm(base, model):
    """A word of one token: as a row of the batch and on its own it does harm of the same kind, with other noise."""
    ids = base.ids("We did not know what he").tolist()
    first, again = (poison(base, model, ids, "not", 5) for _ in range(2))
    assert first.kl == again.kl and first.harm == again.harm
    assert poison(base, model, ids, "not", 6).kl != first.kl


# --- bad input --------------------------------------------------------------------------------------------------------


def test_refusals(refusal):
    assert refusal(ShrinkConfig, window=0) == "window must be at least 1 token, got 0"
    assert refusal(ShrinkConfig, window=4, sinks=4) == "sinks must be fewer than the window holds, got 4 of 4 tokens"
    assert refusal(ShrinkConfig, groups="4").startswith("groups must be one of 3, 2")
    assert refusal(GrowConfig, length=1) == "length must be at least 2 tokens, got 1"
    assert refusal(GrowConfig, block=0) == "block must be at least 1 token, got 0"
    assert refusal(BigConfig, batch=0) == "batch must be at least 1 sequence, got 0"
    assert refusal(BigConfig, weighed=8) == "weighed must be at least 9 tokens, got 8"
    too_long = refusal(lambda: list(grow(GrowConfig(prompt="ß€" * 200, length=900))))
    assert too_long.startswith("prompt and length together must be at most 1024 tokens, got ")


@pytest.mark.parametrize(
    ("prompt", "word"),
    [("We did not know what", "boat"), ("We did not know what", "what"), ("", "not"), ("We did not", ""), ("We", "We")],
)
def test_a_word_that_cannot_be_poisoned(refusal, prompt, word):
    told = refusal(lambda: list(shrink(shrunk(prompt=prompt, poison=word))))
    assert told == f"poison must be a word of your prompt before its last token, got {word!r}"


# --- the lesson -------------------------------------------------------------------------------------------------------


def test_the_questions_and_the_takeaways_follow_a_run():
    """Small runs: what does not depend on this machine's speed has its right answer."""
    small_run = {
        "grow": {"length": 12},
        "shrink": {"context": 132, "batch": 1, "length": 4, "steps": 0, "window": 32},
        "big": {},
    }
    outcomes = {
        run.experiment.name: figures_of(run, run.experiment.config_type(**small_run[run.experiment.name])).outcome
        for run in (grow, shrink, big)
    }
    answers = []
    for ask in (step for step in LESSON.steps if isinstance(step, Ask)):
        index, because = verdict(ask, outcomes[ask.experiment])
        assert because.endswith(".")
        answers.append((ask.experiment, ask.answers[index]))
    assert ("big", "fewer") in answers and ("shrink", "by less than 1 %") in answers
    assert ("grow", "less than twice as long") in answers  # 12 tokens: nothing has grown yet
    said = takeaways(big.experiment, outcomes["big"])
    assert "need 68.7 GB of cache" in said[0] and said[0].endswith("they do not fit.") and "3,965 tokens" in said[1]
    assert "All 12 tokens were the same" in takeaways(grow.experiment, outcomes["grow"])[0]
    fits = figures_of(big, BigConfig(batch=8, weighed=13)).outcome
    assert takeaways(big.experiment, fits)[0].endswith("so they fit.")


def test_many_texts_read_most_experts():
    """DeepSeek-V3 chooses 8 of 256 experts for each token."""
    model = MODELS["deepseek-v3"]
    assert model.weights_read(1) == pytest.approx(model.active)
    in_experts = (model.weights - model.active) / (1 - 8 / 256)
    unread = (model.weights - model.weights_read(64)) / in_experts
    assert 1 - unread == pytest.approx(0.87, abs=0.002)
    assert model.weights_read(1024) == pytest.approx(model.weights)
    assert MODELS["llama-2-7b"].weights_read(7) == MODELS["llama-2-7b"].weights
