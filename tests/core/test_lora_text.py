"""The adapter on a language model: peft's and our accounts of it agree, its file goes out and comes in, and a sweep is
what it says.
"""

import dataclasses
import io
import json
import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import core.foundations.base_model as base_model
import core.foundations.hub as hub
from core.foundations.base_model import load_base
from core.foundations.corpus import Corpus
from core.foundations.figures import by_figure
from core.foundations.turns import with_pauses, without_pauses
from core.lora.adapter_file import files_of, read_adapter, wear
from core.lora.spectrum import RANKS, Spectrum, SpectrumConfig, held_by, singular_parts, spectrum
from core.lora.sweep import FULL, SweepConfig, sweep
from core.lora.text import FILE, LOSS, MERGED, OFF, REVERSED, SHARE, UNTRAINED, USUAL, WEIGHTS, TextConfig, text
from core.lora.tuning import (
    TARGETS,
    Tuner,
    adapt,
    adapter_parameters,
    adapter_weights,
    dial,
    encoded,
    largest_difference,
    layer_shapes,
    logits_of,
    lora_layers,
    pieces,
    validation_start,
    written,
)

text_module = sys.modules["core.lora.text"]  # as an attribute of the package, `text` is the experiment
QUICK = {"steps": 3, "batch": 2, "context": 16, "length": 6}


def fresh():
    return without_pauses(load_base("shipped"))


@pytest.fixture(scope="module", autouse=True)
def few_tokens_judge():
    """Judging is half of a short run's time, and 200 tokens tell these tests as much as 1,000."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["core.lora.sweep"], "EVALUATED_TOKENS", 200)
        patch.setattr(text_module, "USUAL", dataclasses.replace(USUAL, evaluated=200))
        yield


@pytest.fixture(scope="module")
def base():
    """For looking at only: a test that adapts takes a fresh one."""
    return fresh()


@pytest.fixture
def adapted():
    """The base with an adapter whose B is alive, as after training."""
    bare = fresh()
    model = adapt(bare.model, 4, 8.0, list(layer_shapes(bare.model, "all")), seed=1)
    rng = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for layer in lora_layers(model).values():
            layer.lora_B["default"].weight.normal_(0, 0.02, generator=rng)
    return bare, model


def probe(seed=0, length=24):
    return torch.randint(1024, (length,), generator=torch.Generator().manual_seed(seed))


def saved(tensors, **metadata):
    import safetensors.torch

    return safetensors.torch.save(tensors, metadata=metadata or None)


def last_figures(steps):
    return by_figure(result for step in steps for result in step.figures)


# --- the adapter ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("targets", TARGETS)
def test_an_untrained_adapter_changes_no_bit_and_alone_may_learn(base, targets):
    bare, ids = fresh(), probe()
    shapes = layer_shapes(bare.model, targets)
    model = adapt(bare.model, 3, 6.0, list(shapes), seed=0)
    assert torch.equal(logits_of(model, ids), logits_of(base.model, ids))
    assert {name for name, weight in model.named_parameters() if weight.requires_grad} == {
        name for name, _ in model.named_parameters() if "lora_" in name
    }
    assert adapter_weights(model) == adapter_parameters(3, shapes) == model.get_nb_trainable_parameters()[0]
    assert set(lora_layers(model)) == set(shapes)


def test_the_output_is_the_formulas(adapted):
    """y = W x + times alpha / r B A x, layer by layer."""
    _, model = adapted
    x = torch.randn(5, 192, generator=torch.Generator().manual_seed(3))
    layer = lora_layers(model)["model.layers.1.self_attn.v_proj"]
    w, a, b = layer.base_layer.weight, layer.lora_A["default"].weight, layer.lora_B["default"].weight
    for times in (-1.0, 0.0, 0.75, 2.0):
        dial(model, times)
        with torch.no_grad():
            torch.testing.assert_close(layer(x), x @ (w + times * 8.0 / 4 * b @ a).T, rtol=1e-4, atol=1e-5)


def test_the_dial_at_zero_is_the_base_and_merging_changes_rounding_only(base, adapted):
    _, model = adapted
    ids, plain = probe(), logits_of(base.model, probe())
    dial(model, 0.0)
    assert torch.equal(logits_of(model, ids), plain)
    dial(model, 1.0)
    apart = logits_of(model, ids)
    assert largest_difference(apart, plain) > 0.1
    model.merge_adapter()
    assert largest_difference(logits_of(model, ids), apart) < 1e-3 * largest_difference(apart, plain)


def test_a_start_comes_from_the_seed_alone():
    """Also where peft's own draws from the process's random generator went before."""
    models = []
    for seed in (5, 5, 6):
        torch.rand(7)
        bare = fresh()
        models.append(adapt(bare.model, 2, 4.0, list(layer_shapes(bare.model, "qv")), seed))
    a, b, c = (
        torch.cat([layer.lora_A["default"].weight.flatten() for layer in lora_layers(model).values()])
        for model in models
    )
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert float(a.detach().abs().max()) <= 192**-0.5


def test_a_training_step_is_peft_and_adamw_and_nothing_else(base):
    """The tuner against the plain loop, on the same windows; and a batch in parts against the batch at once."""
    ids, weights = probe(1, 400), []
    for at_once in (None, 2):
        bare = fresh()
        model = adapt(bare.model, 2, 4.0, list(layer_shapes(bare.model, "all")), 0)
        tuner = Tuner(model, ids, context=16, batch=4, learning_rate=0.01, steps=2, seed=3)
        tuner.at_once = at_once or tuner.at_once
        losses = [without_pauses(tuner.one_step()) for _ in range(2)]
        weights.append((losses, torch.cat([weight.detach().flatten() for weight in tuner.free])))
    bare = fresh()
    plain = adapt(bare.model, 2, 4.0, list(layer_shapes(bare.model, "all")), 0)
    optimizer = torch.optim.AdamW(
        [p for p in plain.parameters() if p.requires_grad], 0.01, betas=(0.9, 0.99), weight_decay=0.0
    )
    rng = torch.Generator().manual_seed(3)
    for step in range(2):
        optimizer.param_groups[0]["lr"] = 0.01 * (step + 1) / 3 * 0.5 * (1 + math.cos(math.pi * step / 2))
        start = torch.randint(len(ids) - 16, (4, 1), generator=rng) + torch.arange(16)
        loss = torch.nn.functional.cross_entropy(plain(ids[start]).logits.flatten(0, 1), ids[start + 1].flatten())
        assert loss.item() == pytest.approx(weights[0][0][step], rel=1e-5)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    found = torch.cat([p.detach().flatten() for p in plain.parameters() if p.requires_grad])
    for _, tuned in weights:
        torch.testing.assert_close(tuned, found, rtol=0, atol=2e-4)


# --- text in and out --------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(st.lists(st.sampled_from(["ab\n", "c", "\n", "x" * 150_000, "é🙂 "]), max_size=8))
def test_cutting_a_text_into_pieces_loses_nothing(parts):
    words = "".join(parts)
    assert "".join(pieces(words)) == words
    assert all(0 < len(piece) <= 100_000 for piece in pieces(words))


def test_tokens_of_pieces_are_tokens_of_the_text(base, monkeypatch):
    monkeypatch.setattr("core.lora.tuning.CHARACTERS_AT_ONCE", 200)
    words = "Enter CHORUS\n\nCHORUS:\nImagine, if you will, a crooked town\n" * 12
    pauses = []
    ids = without_pauses(with_pauses(encoded(base, words), pauses.append))
    assert pauses
    assert base.text(ids.tolist()) == words


def test_a_sample_comes_from_its_seed(base):
    one, again, other = (without_pauses(written(base, base.model, "The lantern", 30, seed, 0.9)) for seed in (4, 4, 5))
    assert one == again != other
    assert one.startswith("The lantern")


# --- the file ---------------------------------------------------------------------------------------------------------


def test_peft_loads_what_is_handed_over(adapted, tmp_path):
    from peft import PeftModel

    _, model = adapted
    for name, data in files_of(model).items():
        (tmp_path / name).write_bytes(data)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    ids = probe()
    loaded = PeftModel.from_pretrained(fresh().model, str(tmp_path)).eval()
    assert torch.equal(logits_of(loaded, ids), logits_of(model, ids))


def test_the_files_are_pefts_own(adapted, tmp_path):
    """Same tensors, same config as `save_pretrained` writes; and no path of this machine in it."""
    import safetensors.torch

    _, model = adapted
    ours = files_of(model)
    model.save_pretrained(str(tmp_path))
    theirs = safetensors.torch.load_file(tmp_path / "adapter_model.safetensors")
    mine = safetensors.torch.load(ours["adapter_model.safetensors"])
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
    told, wanted = json.loads(ours["adapter_config.json"]), json.loads((tmp_path / "adapter_config.json").read_text())
    for config in (told, wanted):
        config["target_modules"] = sorted(config["target_modules"])
        config.pop("base_model_name_or_path")  # peft writes where this machine has the base
    assert told == wanted
    assert all(str(base_model.ASSETS.parent).encode() not in data for data in ours.values())


def test_an_adapter_comes_back_as_it_went(adapted):
    _, model = adapted
    found = read_adapter(files_of(model)["adapter_model.safetensors"])
    assert (found.rank, found.alpha, found.rank_stable) == (4, 8.0, False)
    again = wear(fresh().model, found, found.alpha)
    assert torch.equal(logits_of(again, probe()), logits_of(model, probe()))


def test_alpha_comes_from_the_file_else_from_the_form(adapted):
    _, model = adapted
    import safetensors.torch

    files = files_of(model)
    bare = saved(safetensors.torch.load(files["adapter_model.safetensors"]))
    said = []
    for data in (files["adapter_model.safetensors"], bare):
        first = next(text(TextConfig(adapter="file", adapter_file=data, alpha=3.0, **QUICK)))
        said.append(first.doing)
    assert "alpha is 8, as the file says" in said[0] and "alpha is 3, from the form" in said[1]


@pytest.mark.parametrize("alpha", ["NaN", "true", '"16"', "0", "1e30", "null", "[16]"])
def test_an_alpha_that_is_no_scale_is_not_believed(adapted, alpha):
    _, model = adapted
    import safetensors.torch

    tensors = safetensors.torch.load(files_of(model)["adapter_model.safetensors"])
    assert read_adapter(saved(tensors, adapter_config=f'{{"lora_alpha": {alpha}}}')).alpha is None
    assert read_adapter(saved(tensors, adapter_config="[" * 100_000)).alpha is None


KEY = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"


def pair(rank=4, d_in=192, d_out=192, key=KEY):
    return {key.format("A"): torch.ones(rank, d_in), key.format("B"): torch.ones(d_out, rank)}


def pickled():
    held = io.BytesIO()
    torch.save(pair(), held)
    return held.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "adapter_file is missing"),
        (b"PK\x03\x04 not one", "not a whole safetensors file"),
        (pickled(), "never pickles"),
        (saved(pair())[:-40], "not a whole safetensors file"),
        (saved({"model.embed_tokens.weight": torch.ones(4, 4)}), "nothing but LoRA matrices"),
        (saved(pair() | {KEY.format("magnitude_vector"): torch.ones(4)}), "nothing but LoRA matrices"),
        (saved({KEY.format("A"): torch.ones(4, 192)}), "no matching pair"),
        (saved(pair() | {KEY.format("B"): torch.ones(192, 5)}), "no matching pair"),
        (saved(pair() | pair(8, key=KEY.replace("q_proj", "v_proj"))), "mixes the ranks 4, 8"),
        (saved(pair(300)), "rank must be from 1 to 256, got 300"),
        (saved(pair() | {KEY.format("A"): torch.full((4, 192), math.nan)}), "not finite"),
        (saved(pair(d_in=4096, d_out=4096)), "is 192 x 192 here and 4096 x 4096 in the file"),
        (saved(pair(key=KEY.replace("layers.0", "layers.31"))), "for another model"),
        (saved(pair(), adapter_config='{"lora_alpha": 8, "use_dora": true}'), "only plain LoRA"),
    ],
)
def test_a_file_that_does_not_fit_gets_one_sentence(refusal, data, words):
    assert words in refusal(lambda: list(text(TextConfig(adapter="file", adapter_file=data, **QUICK))))


# --- the experiment `text` --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run():
    return list(text(TextConfig(**QUICK)))


def test_text_learns_turns_and_hands_over(run):
    figures = last_figures(run)
    assert figures[UNTRAINED].measured == 0 == figures[OFF].measured
    assert figures[WEIGHTS].gap == 0 == figures[SHARE].gap
    assert figures[LOSS].measured < figures[LOSS].expected < figures[REVERSED].measured
    assert 0 < figures[MERGED].measured < 1e-3
    assert 0 < figures[FILE].gap < 0.05 * figures[FILE].expected
    assert set(run[-1].files) == {"adapter_model.safetensors", "adapter_config.json"}
    assert len(run[-1].files["adapter_model.safetensors"]) == figures[FILE].measured


def test_the_dial_has_its_stops_and_its_ends_are_before_and_after(run):
    stops = [step for step in run[1:] if step.times is not None]
    assert [stop.times for stop in stops] == list(USUAL.stops) and {0.0, 1.0, -1.0, 2.0} < set(USUAL.stops)
    texts, losses = {stop.times: stop.dial_text for stop in stops}, dict(stops[0].dial_losses)
    assert texts[0.0] == run[0].before
    assert texts[1.0] == [step.after for step in run if step.after is not None and step.times is None][-1]
    assert losses[0.0] == run[0].validation_loss
    assert (
        losses[1.0]
        == [step.validation_loss for step in run if step.validation_loss is not None][-2]
        < losses[0.0]
        < losses[-1.0]
    )


def test_the_adapter_of_a_run_shows_the_same_dial_again(run):
    again = list(
        text(TextConfig(adapter="file", adapter_file=run[-1].files["adapter_model.safetensors"], alpha=999.0, **QUICK))
    )
    assert [step.dial_text for step in again if step.times is not None][1:] == [
        step.dial_text for step in run if step.times is not None
    ][1:]
    assert all(step.loss is None for step in again)
    assert UNTRAINED not in last_figures(again)
    assert again[-1].files == run[-1].files


def test_the_same_seed_is_the_same_run(run):
    torch.rand(3)  # the process's own random generator does not matter
    for one, other in zip(run, text(TextConfig(**QUICK)), strict=True):
        assert dataclasses.asdict(one) == dataclasses.asdict(other)


def test_no_step_only_looks():
    steps = list(text(TextConfig(**QUICK | {"steps": 0, "targets": "qv", "rank": 1})))
    losses = {loss for step in steps for _, loss in step.dial_losses}
    assert len(losses) == 1, "B is zero, so the dial turns nothing"


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"rank": 193}, "rank must be at most 192"),
        ({"rank": 0}, "rank must be at least 1"),
        ({"alpha": math.nan}, "alpha must be a number"),
        ({"model": "openai-community/gpt2"}, "model must be one of"),
        ({"targets": "embeddings"}, "targets must be one of"),
        ({"corpus": "own", "own_text": "hello"}, "too short"),
        ({"corpus": "own", "own_text": "🙂" * 60}, "at least 2 different characters"),
        ({"corpus": "own", "own_text": "🙂🦊" * 20}, "too short"),
        ({"corpus": "own", "own_file": b"\xff\xfd"}, "UTF-8"),
    ],
)
def test_what_cannot_be_done_gets_one_sentence(refusal, told, words):
    assert words in refusal(lambda: list(text(TextConfig(**QUICK | told))))


def test_emoji_can_be_learnt():
    """Byte by byte: nothing is unknown to the tokenizer."""
    steps = list(text(TextConfig(corpus="own", own_text="🙂🦊 ☔ été\n" * 60, **QUICK)))
    loss = last_figures(steps)[LOSS]
    assert loss.measured < loss.expected


@settings(max_examples=20)
@given(st.integers(1, 400), st.sampled_from(["word ", "🙂🦊", "Enter CHORUS\n"]), st.integers(8, 64))
def test_the_length_that_is_asked_for_is_enough(base, number, unit, context):
    """Whoever follows the sentence gets a run."""
    words = unit * number
    cut = int(0.9 * len(words))
    try:
        validation_start(base, Corpus("own", words[:cut], words[cut:], ""), context, 1024)
    except ValueError as problem:
        asked = int(str(problem).split("about ")[1].split(" ")[0].replace(",", ""))
        words = unit * math.ceil(1.5 * asked / len(unit))
        cut = int(0.9 * len(words))
        assert len(validation_start(base, Corpus("own", words[:cut], words[cut:], ""), context, 1024)) > context


def test_a_rate_too_high_ends_the_run_in_words():
    steps = list(text(TextConfig(**QUICK | {"steps": 30, "learning_rate": 1.0, "alpha": 1000.0})))
    assert steps[-1].diverged and "smaller learning rate" in steps[-1].doing and steps[-1].figures


# --- models of the hub ------------------------------------------------------------------------------------------------


@pytest.fixture
def hub_model(tmp_path, monkeypatch):
    """A tiny Llama in the hub's format under a name of the allow-list, as if it had been downloaded."""
    from transformers import LlamaConfig, LlamaForCausalLM

    small = LlamaConfig(
        vocab_size=1024,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model, rng = LlamaForCausalLM(small), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.normal_(0, 0.1, generator=rng)
    model.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((base_model.FOLDER / "tokenizer.json").read_bytes())
    monkeypatch.setattr(hub, "hub_folder", lambda name: tmp_path)
    return "HuggingFaceTB/SmolLM2-135M"


@pytest.mark.parametrize("precision", text_module.PRECISIONS)
def test_a_hub_model_says_what_it_needs_and_learns(hub_model, precision):
    """Grouped keys, so the smallest layer has another shape; float16 weights with a float32 adapter."""
    steps = list(text(TextConfig(model=hub_model, precision=precision, **QUICK)))
    assert "needs about 0." in steps[0].doing and "GB are free" in steps[0].doing
    figures = last_figures(steps)
    assert figures[OFF].measured == 0
    assert figures[WEIGHTS].gap == 0 and figures[WEIGHTS].measured == 2 * 8 * (2 * 64 + 2 * 48 + 3 * 80)
    assert json.loads(steps[-1].files["adapter_config.json"])["base_model_name_or_path"] == hub_model
    assert figures[LOSS].measured < figures[LOSS].expected


def test_a_rank_is_measured_against_the_smallest_layer(hub_model, refusal):
    assert "rank must be at most 16" in refusal(lambda: list(text(TextConfig(model=hub_model, rank=17, **QUICK))))


def test_a_gated_model_without_a_token_gets_its_sentence(monkeypatch, refusal):
    def gated(name):
        raise hub.Unavailable(
            f"{hub.HUB[name].what} is gated: accept its licence on the hub and set HF_TOKEN where the app runs."
        )

    monkeypatch.setattr(hub, "hub_folder", gated)
    monkeypatch.setattr(text_module, "CPU_UNIT_SECONDS", math.inf)
    for module in (base_model, text_module):
        monkeypatch.setattr(module, "free_bytes", lambda: 1e12)
    assert "gated" in refusal(lambda: list(text(TextConfig(model="meta-llama/Llama-2-7b-hf"))))


def test_what_does_not_fit_is_refused_before_anything_is_fetched(monkeypatch, refusal):
    def fetch(name):
        raise AssertionError("fetched")

    monkeypatch.setattr(hub, "hub_folder", fetch)
    monkeypatch.setattr(base_model, "free_bytes", lambda: 4e9)
    said = refusal(lambda: list(text(TextConfig(model="meta-llama/Llama-2-7b-hf", precision="float16"))))
    assert "needs 15.5 GB of memory, and 4.0 GB are free" in said


def test_a_model_without_such_layers_has_no_target(refusal):
    bare = torch.nn.Sequential(torch.nn.Linear(4, 4))
    assert "targets must name layers of the model" in refusal(layer_shapes, bare, "qv")


# --- the experiment `sweep` -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def swept():
    return list(sweep(SweepConfig(steps=3, context=16, batch=1)))


def test_a_sweep_compares_all_ranks(swept, base):
    first, last = swept[0], [step for step in swept if step.dots][-1]
    assert [dot.rank for dot in last.dots] == [*RANKS, FULL] == [one.rank for one in last.weighed]
    assert {dot.loss for dot in first.dots} == {first.base_loss}, "every run starts from the base"
    assert all(dot.loss < first.base_loss for dot in last.dots)
    assert [dot.parameters for dot in last.dots] == [15_360 * rank for rank in RANKS] + [
        sum(w.numel() for w in base.model.parameters())
    ]
    assert len({dot.loss for dot in last.dots}) == len(last.dots) and all(dot.spread > 0 for dot in last.dots)


def test_memory_is_the_formulas_but_for_the_step_counters(swept):
    for one in [step for step in swept if step.weighed][-1].weighed:
        tensors = 28 * 2 if one.rank else 39
        assert one.held.total - one.by_formula == 4 * tensors
        assert one.held.gradients == (one.held.adapters if one.rank else one.held.weights)


def test_the_spectrum_is_the_changes():
    steps = list(spectrum(SpectrumConfig(steps=3, context=16, batch=1)))
    found = [step.spectrum for step in steps if step.spectrum]
    last = found[-1]
    assert isinstance(last, Spectrum) and len(last.change) == 192 and np.all(np.diff(last.change) <= 0)
    assert list(last.held) == sorted(last.held) and 0 < last.held[0] < last.held[-1] < 1
    assert all(real > random for real, random in zip(last.held, last.random_held, strict=True))
    assert last.layers_loss < last.base_loss and abs(last.kept[-1] - 1) < abs(last.kept[0] - 1)
    assert [len(one.cut_loss) for one in found[-len(RANKS) - 1 :]] == [*range(1, len(RANKS) + 1), len(RANKS)]


def test_a_spectrum_with_a_rate_too_high_says_so():
    last = list(spectrum(SpectrumConfig(steps=6, context=16, learning_rate=1.0)))[-1]
    assert last.diverged and "smaller learning rate" in last.doing and last.figures


def test_the_same_seed_is_the_same_sweep(swept):
    """As far as the first look at all runs."""
    for one, other in zip(swept, sweep(SweepConfig(steps=3, context=16, batch=1)), strict=False):
        assert (one.step, one.dots, one.doing) == (other.step, other.dots, other.doing)
        if other.dots and other.step:
            break
    assert other.step == 1 and len({dot.loss for dot in other.dots}) == len(RANKS) + 1


def test_what_a_rank_holds_is_the_best_copys_size():
    """Eckart and Young, on a matrix small enough to check: the share held is 1 - |M - M_r|^2 / |M|^2."""
    matrix = torch.randn(40, 60, generator=torch.Generator().manual_seed(0))
    u, sigma, v = singular_parts(matrix)
    for rank, held in zip(RANKS, held_by(sigma.numpy()), strict=True):
        copy = (u[:, :rank] * sigma[:rank]) @ v[:rank]
        assert held == pytest.approx(1 - float((matrix - copy).square().sum() / matrix.square().sum()), abs=1e-5)


def test_a_sweep_with_a_rate_too_high_says_which_rank(refusal):
    steps = list(sweep(SweepConfig(steps=6, seeds=1, context=16, full_learning_rate=1.0)))
    assert steps[-1].diverged and "loss of full" in steps[-1].doing


def test_a_sweep_needs_a_text_long_enough(refusal):
    assert "too short" in refusal(lambda: list(sweep(SweepConfig(corpus="own", own_text="ab " * 30))))
