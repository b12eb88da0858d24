"""Byte-pair encoding: equal to the library's, exact where it is cut, honest where it is compared."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from core.foundations.corpus import load_corpus
from core.foundations.figures import by_figure
from core.nanogpt.tokens import (
    BEST,
    BYTES,
    BYTEWISE,
    COST,
    KINDS,
    LENGTH,
    SAME,
    VOCABULARY,
    WORDS,
    YOURS,
    BytePairs,
    TokensConfig,
    bits_per_byte,
    in_units,
    library_merges,
    merged,
    pieces_of,
    shown,
    stops,
    tokens,
    words_of,
)

STRANGE = "Ünï ñ 東京の夜 ⛵🐋❄️ don't 12²½  \n\n\t x\r\n abababab aaaa aaa\x00 e\u0301 " * 3


def learned(text, merges):
    pairs = BytePairs(Counter(words_of(text)))
    for _ in range(merges):
        if pairs.learn() is None:
            break
    return pairs


@pytest.fixture(scope="module")
def play():
    return load_corpus("play").train[:60_000]


@pytest.mark.parametrize("name", ["play", "python", "strange"])
def test_the_merges_are_those_of_the_library(name):
    text = STRANGE if name == "strange" else load_corpus(name).train[:120_000]
    pairs = learned(text, 400)
    assert len(pairs.merges) == 400 or name == "strange"
    assert pairs.merges == library_merges(text, 400)


@pytest.mark.parametrize("text", [*KINDS.values(), STRANGE, "The lighthouse keeper's lantern burned until 11:45."])
def test_a_text_is_cut_as_the_library_cuts_it(text, play):
    pairs = learned(play, 300)
    letter = dict(zip(BYTES, sorted(WORDS.alphabet()), strict=True))
    written = ["".join(letter[byte] for byte in token) for token in pairs.tokens]
    merges = [tuple("".join(letter[byte] for byte in half) for half in pair) for pair in pairs.merges]
    library = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(written)}, merges=merges))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    ours = [token for word in words_of(text) for token in pairs.cut(word)]
    assert ours == library.encode(text).ids
    assert b"".join(pairs.tokens[token] for token in ours).decode() == text


def test_a_word_is_cut_as_its_learned_row(play):
    """What is kept up to date while learning is what cutting anew gives."""
    pairs = learned(play, 200)
    assert all(pairs.cut(word) == row for word, row in pairs.cuts.items())


def test_the_pairs_are_counted_as_they_stand(play):
    pairs = learned(play[:5000], 50)
    anew = Counter()
    for word, row in pairs.cuts.items():
        for pair in itertools.pairwise(row):
            anew[pair] += pairs.counts[word]
    assert +pairs.pairs == anew


def test_the_paper_s_example():
    """Sennrich et al. 2016, Algorithm 1, whose words also have an end sign: es, est, est with the sign, lo, low."""
    pairs = BytePairs({"low": 5, "lower": 2, "newest": 6, "widest": 3})
    assert [pairs.learn() for _ in range(4)] == [(b"es", 9), (b"est", 9), (b"lo", 7), (b"low", 7)]
    assert [pairs.tokens[token] for token in pairs.cut("lowest")] == [b"low", b"est"]


@given(st.lists(st.integers(0, 3), max_size=12))
def test_merging_goes_from_left_to_right(row):
    out = merged(row, (1, 1), 9)
    assert [part for token in out for part in ([1, 1] if token == 9 else [token])] == row
    assert (1, 1) not in itertools.pairwise(out)


@given(st.text(max_size=300))
def test_words_are_the_text_and_pieces_cut_none(text):
    assert "".join(words_of(text)) == text
    long = (text + "\nend \n\n of it") * 2
    assert "".join(pieces_of(long)) == long


def test_pieces_give_the_words_of_the_whole():
    text = load_corpus("python").train[:200_000]
    pieces = list(pieces_of(text))
    assert len(pieces) > 3 and [word for piece in pieces for word in words_of(piece)] == words_of(text)


def test_stops_begin_one_by_one_and_end_with_the_last():
    assert stops(600)[:6] == [1, 2, 3, 4, 5, 6] and stops(600)[-1] == 600
    assert stops(1) == [1] and stops(3) == [1, 2, 3]


def test_bits_per_byte_by_hand():
    """Two symbols, each always followed by the other: after the first one the table is nearly sure."""
    row = np.array([0, 1] * 50)
    sure = bits_per_byte(row, row, 2, len(row))
    assert 0 < sure < 0.1
    alone = bits_per_byte(np.array([0, 0, 1, 1]), np.array([0]), 2, 1)
    assert alone == pytest.approx(-math.log2((2 + 2 * 0.5) / (4 + 2)))  # Witten-Bell: (2 + 2 x 1/2) / (4 + 2) = 1/2


def test_all_units_hold_the_whole_text(play):
    pairs = learned(play[:4000], 100)
    at = play.index("\n", 3000)
    texts, symbols = (play[:at], play[at:4000]), "".join(sorted(set(play)))
    words = tuple([word for word in words_of(text) if word in pairs.cuts] for text in texts)
    texts = tuple("".join(part) for part in words)
    (train, new), size = in_units("tokens", texts, words, symbols, pairs)
    assert size == len(pairs.tokens) == len(BYTES) + 100
    for row, text in ((train, texts[0]), (new, texts[1])):
        assert b"".join(pairs.tokens[token] for token in row).decode() == text
    (train, _), size = in_units("characters", texts, words, symbols, pairs)
    assert "".join(symbols[i] for i in train) == texts[0] and size == len(symbols)
    (train, _), size = in_units("bytes", texts, words, symbols, pairs)
    assert bytes(train.tolist()).decode() == texts[0] and size == 256


def run(**settings):
    *steps, last = tokens(TokensConfig(**settings))
    return steps, last, by_figure(last.figures)


def test_a_run_reports_what_it_learned():
    steps, last, figures = run(merges=120)
    frames = [step for step in steps if step.cut]
    assert [step.merges for step in frames] == [0, *stops(120)]
    assert (
        "".join(text for text, _ in frames[0].cut) == TokensConfig().sentence == "".join(t for t, _ in frames[-1].cut)
    )
    assert len(frames[0].cut) == len(TokensConfig().sentence.encode()) > len(frames[-1].cut)
    assert figures[SAME].measured == 0 == figures[SAME].gap
    assert figures[VOCABULARY].measured == 256 + 120
    assert figures[LENGTH].measured == last.length > 1.5
    assert figures[BEST].measured < figures[BEST].expected
    assert figures[COST.of(kind="Chinese")].measured > 2 > figures[COST.of(kind="Chinese")].expected
    lengths = [step.length for step in frames if step.length]
    assert lengths == sorted(lengths)


def test_a_text_in_another_script_learns_its_own():
    text = "钟响两次之前，潮水把绳子带走了。" * 40
    steps, last, figures = run(corpus="own", own_text=text, merges=60, sentence="潮水把绳子")
    cut = [step for step in steps if step.cut]
    assert len(cut[0].cut) == 15 and "⟨" in cut[0].cut[0][0]  # a character of three bytes is no letter yet
    assert len(cut[-1].cut) < 6
    assert last.merges < 60  # no pair occurs twice any more? then it ends early, and says how many it learned
    assert figures[BYTEWISE].measured != figures[BYTEWISE].expected


def test_a_short_text_and_no_sentence_get_their_sentence():
    with pytest.raises(ValueError, match="100 are needed"):
        run(corpus="own", own_text="ab ab ab")
    with pytest.raises(ValueError, match="at least 1 character"):
        TokensConfig(sentence="")


def test_a_part_of_a_character_is_shown_by_its_byte():
    assert [shown("é".encode()), shown(b"\xc3"), shown(b" the")] == ["é", "⟨C3⟩", " the"]


def test_smollm2_cuts_the_sentence_too_and_loses_nothing():
    config = TokensConfig(sentence="Zwölf 🐋 swim\n  at 11:45.", merges=5)
    steps = list(tokens(config))
    (real,) = [step.real for step in steps if step.real]
    assert "".join(real).replace("⟨F0⟩", "").count("swim") == 1 and len(real) < len(config.sentence.encode())
    assert {"1", "4", "5"} <= set(real)  # each digit is a token of its own
    run = by_figure([result for step in steps for result in step.figures])
    assert run[YOURS].expected == len(real) and run[YOURS].measured == len([step for step in steps if step.cut][-1].cut)


def test_without_smollm2_the_run_ends_as_well(monkeypatch):
    monkeypatch.setattr("core.foundations.real_model.installed", lambda: False)
    steps = list(tokens(TokensConfig(merges=5)))
    assert not any(step.real for step in steps) and YOURS not in {result.figure for result in steps[-1].figures}
