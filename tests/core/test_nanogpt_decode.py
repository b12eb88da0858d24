"""Decoding: beam search against transformers' and against trying all texts, the measures by hand, the bars' words."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.foundations.experiment import find
from core.foundations.figures import Outcome, by_figure
from core.foundations.lesson import verdict
from core.foundations.sampling import Choice, fresh, next_logits, probabilities, write
from core.foundations.transformer import Shape
from core.foundations.weights import gpt2_from_folder, to_bytes
from core.nanogpt import DecodeConfig, decode
from core.nanogpt.beams import beam_search
from core.nanogpt.decoding import KEPT, REPEATED, SUM, SURPRISAL, UNSEEN, WAYS, repeated, repeats, surprisal_of
from core.nanogpt.generating import Writer, shipped_writer
from core.nanogpt.lesson import LESSON, what_the_beam_found, what_was_left, whether_it_goes_in_circles

SHORT = {"length": 24}


def run(**changes):
    return list(decode(DecodeConfig(**SHORT | changes)))


def ended(steps, config=None):
    return Outcome(by_figure(steps[-1].figures), config or DecodeConfig(**SHORT), steps[-1])


# --- beam search ---


@torch.no_grad()
def sum_of(model, prompt, text):
    """ln p of a text after a prompt, by the definition."""
    ids = torch.tensor([prompt + list(text)])
    logs = torch.log_softmax(model(ids)[0].float(), -1)
    return sum(float(logs[len(prompt) - 1 + i, token]) for i, token in enumerate(text))


def test_one_beam_is_greedy(lively):
    model = lively(Shape(11, 2, 2, 16, 16))
    greedy = [drawn.token for drawn in write(model, [3, 1], 30, Choice(0.0), torch.Generator())]  # past the context
    assert list(beam_search(model, [3, 1], 30, 1))[-1].tokens.tolist() == [greedy]


def test_enough_beams_find_the_most_probable_text(lively):
    model = lively(Shape(5, 2, 2, 16, 16))
    best = max(itertools.product(range(5), repeat=4), key=lambda text: sum_of(model, [3, 1], text))
    found = list(beam_search(model, [3, 1], 4, 5**3))[-1]
    assert found.tokens[0].tolist() == list(best)
    assert float(found.scores[0]) == pytest.approx(sum_of(model, [3, 1], best), abs=1e-4)


@pytest.mark.parametrize("beams", [2, 3, 5])
def test_beams_equal_those_of_transformers(beams, tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    sizes = GPT2Config(vocab_size=13, n_positions=32, n_embd=16, n_layer=2, n_head=2, initializer_range=0.4)
    theirs = GPT2LMHeadModel(sizes).eval()
    theirs.save_pretrained(tmp_path)
    prompt = [3, 1, 4, 1]
    told = theirs.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, 4, dtype=torch.long),
        num_beams=beams,
        num_return_sequences=beams,
        do_sample=False,
        max_new_tokens=12,
        eos_token_id=None,
        pad_token_id=0,
        length_penalty=0.0,
    )
    ours = list(beam_search(gpt2_from_folder(tmp_path), prompt, 12, beams))[-1]
    assert ours.tokens.tolist() == told[:, 4:].tolist()


def test_the_scores_of_a_beam_are_those_of_its_texts(lively):
    model = lively(Shape(11, 2, 2, 16, 32))
    for beam in beam_search(model, [3, 1], 12, 4):
        assert beam.scores.tolist() == sorted(beam.scores.tolist(), reverse=True)
    for text, score in zip(beam.tokens.tolist(), beam.scores.tolist(), strict=True):
        assert score == pytest.approx(sum_of(model, [3, 1], text), abs=1e-3)


# --- the measures ---


@pytest.mark.parametrize(
    ("text", "share"),
    [("", 0.0), ("one", 0.0), ("a b c d", 0.0), ("the sea the sea", 1 / 3), ("no no no no no", 3 / 4)],
)
def test_pairs_of_words_that_stood_before(text, share):
    assert repeated(text) == pytest.approx(share)


@pytest.mark.parametrize(
    ("text", "marked"),
    [
        ("a b c", []),
        ("the sea the sea", ["the sea"]),
        ("no no no no", ["no no no"]),
        ("a b. c a b. d a b.", ["a b.", "a b."]),
    ],
)
def test_what_is_marked_stood_before(text, marked):
    assert [text[first:end] for first, end in repeats(text)] == marked


@given(st.text("ab \n", max_size=60))
def test_something_is_marked_where_something_is_repeated(text):
    assert bool(repeats(text)) == (repeated(text) > 0)


@given(st.text("ab \n", max_size=60))
def test_the_share_is_a_share(text):
    assert 0 <= repeated(text) < 1


def test_the_surprisal_of_a_text_that_fits_is_that_of_the_definition(lively):
    model = lively(Shape(11, 2, 2, 16, 32))
    writer, text = Writer(model, tuple("abcdefghijk"), {}, None), [5, 3, 5, 8, 9, 7]
    assert surprisal_of(writer, [3, 1, 4], text) == pytest.approx(-sum_of(model, [3, 1, 4], text) / 6, abs=1e-5)


def test_the_surprisal_of_a_long_text_reads_half_a_window_before_each_token(lively):
    model = lively(Shape(11, 2, 2, 16, 8))
    writer, text = Writer(model, tuple("abcdefghijk"), {}, None), [(7 * i + i // 3) % 11 for i in range(25)]
    whole, total = [3, 1, 4, *text], 0.0
    for at in range(3, len(whole), 4):  # windows of 8: up to four tokens that are only read, four that count
        start = max(0, at - 4)
        total += sum_of(model, whole[start:at], whole[at : at + 4])
    assert surprisal_of(writer, [3, 1, 4], text) == pytest.approx(-total / 25, abs=1e-4)


# --- the run ---


def test_the_bars_are_the_model_s_and_the_sampler_s():
    steps = run()
    bars, writer = [step for step in steps if step.stage], shipped_writer()
    assert [step.stage for step in bars] == ["the model", "temperature", "top-k", "top-p", "min-p", "one is taken"]
    logits = next_logits(writer.model, torch.tensor([writer.ids(DecodeConfig().prompt)]), fresh(writer.model), None)
    place = {symbol: i for i, symbol in enumerate(writer.symbols)}
    by_model, by_sampler = torch.softmax(logits, -1), probabilities(logits, DecodeConfig().choice)
    for symbol, before, after in zip(bars[-1].symbols, bars[-1].before, bars[-1].after, strict=True):
        assert before == pytest.approx(float(by_model[place[symbol]]))
        assert after == pytest.approx(float(by_sampler[place[symbol]]))
    assert ended(steps)[KEPT].measured == int((by_sampler > 0).sum())


@pytest.mark.parametrize(
    ("changes", "stages"),
    [
        ({"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}, []),
        ({"temperature": 0.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}, ["temperature"]),
        ({"temperature": 1.0, "top_k": 3, "top_p": 1.0, "min_p": 0.0}, ["top-k"]),
    ],
)
def test_a_rule_that_changes_nothing_is_no_stage(changes, stages):
    assert [step.stage for step in run(**changes) if step.stage][1:-1] == stages


def test_greedy_is_the_model_s_first_choice_and_the_seed_decides_only_what_is_drawn():
    texts = [{step.way: step.text for step in run(seed=seed) if step.way} for seed in (1, 2)]
    assert texts[0].keys() == WAYS.keys()
    for way in WAYS:
        assert (texts[0][way] == texts[1][way]) == (way in ("greedy", "penalty", "beam"))


def test_at_temperature_zero_your_draw_is_greedy():
    texts = {step.way: step.text for step in run(temperature=0.0) if step.way}
    assert texts["yours"] == texts["greedy"]


def test_greedy_goes_in_circles_and_people_do_not():
    """Holtzman et al., figure 2: the likeliest text is not like people's."""
    steps = run(length=300)
    told = ended(steps, DecodeConfig())
    greedy, drawn = (told[REPEATED.of(way=WAYS[way])] for way in ("greedy", "draw"))
    assert greedy.measured > 20 and drawn.measured < 5 and greedy.expected < 5
    assert told[SURPRISAL.of(way=WAYS["greedy"])].ratio < 0.7
    assert 0.8 < told[SURPRISAL.of(way=WAYS["draw"])].ratio < 1.1  # drawn text is as surprising as people's
    assert told[SUM].difference > 0
    assert [line.name for line in steps[-1].measured] == [*WAYS.values(), UNSEEN]
    assert "goes in circles" in whether_it_goes_in_circles(told)
    assert "one that is more probable" in what_the_beam_found(told)
    assert what_was_left(told).startswith("For the next place ")


def test_takeaways_follow_the_numbers():
    figures = by_figure(run()[-1].figures)
    way = WAYS["greedy"]
    changed = figures | {
        REPEATED.of(way=way): REPEATED.of(way=way)(1.0, 1.0),
        SURPRISAL.of(way=way): SURPRISAL.of(way=way)(2.0, 1.0),
        SUM: SUM(-90.0, -80.0),
    }
    told = Outcome(changed, DecodeConfig(), None)
    assert "less probable than what people write" in whether_it_goes_in_circles(told)
    assert "hardly repeats itself" in whether_it_goes_in_circles(told)
    assert "one that is less probable" in what_the_beam_found(told)


def test_a_model_that_does_not_know_the_play_s_characters_is_compared_with_nothing(lively):
    file = to_bytes(lively(Shape(3, 1, 1, 8, 8)), "abc", "own")
    steps = run(model="own", model_file=file, prompt="ab")
    figures = by_figure(steps[-1].figures)
    assert figures[REPEATED.of(way=WAYS["greedy"])].expected is None
    assert len(steps[-1].measured) == len(WAYS)
    assert all(math.isfinite(line.surprisal) for line in steps[-1].measured)


def test_a_prompt_of_unknown_characters_gets_one_sentence(refusal):
    assert refusal(lambda: run(prompt="Привет")) == "prompt must have at least one character that the model knows"
    assert "never seen “П”" in run(prompt="Пr")[-1].doing


@pytest.mark.parametrize(("greedy", "right"), [(0.0, 0), (3.0, 1), (14.0, 1), (16.0, 2), (90.0, 2)])
def test_how_much_greedy_repeats_decides_what_its_text_is_like(greedy, right):
    ask = next(step for step in LESSON.steps if step.experiment == "decode")
    figures = [REPEATED.of(way=WAYS["greedy"])(greedy, 5.5), REPEATED.of(way=WAYS["yours"])(2.0, 5.5)]
    assert verdict(ask, Outcome(by_figure(figures), DecodeConfig(), None))[0] == right


def test_too_many_beams_get_one_sentence(lively, refusal):
    file = to_bytes(lively(Shape(3, 8, 1, 128, 4096)), "abc", "own")
    config = {"model": "own", "model_file": file, "prompt": "ab" * 1000, "beams": 16, "length": 600}
    assert refusal(lambda: run(**config)) == (
        "beams must be at most 12 with a model and texts of this size, got 16 texts"
    )


def test_what_the_beam_found_says_so_when_it_is_greedy_s_own_text():
    assert "nothing more probable" in what_the_beam_found(ended(run(beams=1)))


def test_a_beam_copies_only_what_it_has_seen(lively):
    """The keys and values of the chosen texts, equal to those of a search that reads everything again."""
    model = lively(Shape(11, 2, 2, 16, 64))
    beams = list(beam_search(model, [3, 1, 4], 20, 3))
    for beam in beams[::5]:
        for text, score in zip(beam.tokens.tolist(), beam.scores.tolist(), strict=True):
            assert score == pytest.approx(sum_of(model, [3, 1, 4], text), abs=1e-3)


@pytest.mark.parametrize("name", ["decode", "generate", "inside"])
def test_numbers_that_overflow_get_one_sentence(name, lively, refusal):
    model = lively(Shape(3, 24, 1, 8, 8, norm=False, residual=False))
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(9e5 / weight.abs().max())
    one, file = find("nanogpt", name), to_bytes(model, "abc", "own")
    text = {"text" if name == "inside" else "prompt": "ab"}
    assert "overflow" in refusal(lambda: list(one.run(one.config_type(model="own", model_file=file, **text))))
