"""The transformer against transformers' GPT-2, against itself with a cache, and against its own formulas."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from core.foundations.transformer import Cache, Shape, Transformer, attention_map, rotate
from core.foundations.weights import from_gpt2, llama_from_folder

DIALECTS = ("modern", "gpt2", "llama")
TINY = {"n_layer": 2, "n_head": 2, "width": 16, "context": 16}


def tiny(dialect="modern", **changes):
    grouped = {"kv_heads": 1, "hidden": 24} if dialect == "llama" else {}
    return Shape(**{"vocabulary": 11, **TINY, "dialect": dialect, **grouped, **changes})


def ids(*shape, seed=0):
    return torch.randint(11, shape, generator=torch.Generator().manual_seed(seed))


def rows(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_gpt2_dialect_computes_what_transformers_computes():
    from transformers import GPT2Config, GPT2LMHeadModel

    theirs = GPT2LMHeadModel(
        GPT2Config(vocab_size=11, n_positions=16, n_embd=24, n_layer=2, n_head=3, activation_function="gelu_new")
    ).eval()
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in theirs.parameters():
            weight.add_(torch.randn(weight.shape, generator=rng) * 0.1)
    ours = Transformer(Shape(11, 2, 3, 24, 16, "gpt2", bias=True, tied=True)).eval()
    ours.load_state_dict(from_gpt2(theirs.transformer.state_dict(), 2))
    tokens = ids(3, 16)
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens), theirs(tokens).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("tied", [True, False])
def test_llama_dialect_computes_what_transformers_computes(tied, tmp_path):
    """Four heads of queries, two of keys and values; read from a folder in the hub's format."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=11,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        rope_parameters={"rope_type": "default", "rope_theta": 1e5},
        rms_norm_eps=1e-5,
        tie_word_embeddings=tied,
    )
    theirs, rng = LlamaForCausalLM(config).eval(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in theirs.parameters():
            weight.add_(torch.randn(weight.shape, generator=rng) * 0.1)
    theirs.save_pretrained(tmp_path)
    ours, tokens = llama_from_folder(tmp_path, 16), ids(3, 16)
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens), theirs(tokens).logits, atol=1e-5, rtol=0)
    matrices = [weight for weight in ours.blocks.parameters() if weight.ndim == 2]
    assert sum(weight.numel() for weight in matrices) == ours.shape.matrix_parameters


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_token_changes_no_logits_before_it(dialect, lively):
    model, tokens = lively(tiny(dialect)), ids(1, 16)
    before = model(tokens)
    for t in range(16):
        other = tokens.clone()
        other[0, t] = (other[0, t] + 1) % 11
        after = model(other)
        torch.testing.assert_close(after[:, :t], before[:, :t], atol=1e-6, rtol=0)
        assert not torch.allclose(after[:, t], before[:, t], atol=1e-3)


@pytest.mark.parametrize("dialect", DIALECTS)
@given(cuts=st.sets(st.integers(1, 15)), seed=st.integers(0, 99))
def test_cached_equals_recomputed(dialect, lively, cuts, seed):
    """However the text is split into pieces."""
    model, tokens = lively(tiny(dialect), seed), ids(2, 16, seed=seed)
    cache = Cache(model.shape, 2, 16, model.embed.weight)
    with torch.no_grad():
        pieces = [model(piece, cache) for piece in tokens.tensor_split(sorted(cuts), 1)]
        torch.testing.assert_close(torch.cat(pieces, 1), model(tokens), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("tokens", [0, 1, 7, 16])
def test_cache_bytes(tokens):
    model = Transformer(tiny(n_layer=3, n_head=2, width=24))
    cache = Cache(model.shape, 1, 16, model.embed.weight)
    if tokens:
        with torch.no_grad():
            model(ids(1, tokens), cache)
    layers, heads, head_width = 3, 2, 12
    assert cache.nbytes_used == 2 * layers * heads * head_width * tokens * 4


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("past", [0, 5])
def test_attention_maps_are_distributions_over_the_past(dialect, past, lively):
    model, tokens, maps = lively(tiny(dialect)), ids(1, 12), []
    cache = Cache(model.shape, 1, 16, model.embed.weight)
    if past:
        model(tokens[:, :past], cache)
    model(tokens[:, past:], cache, maps)
    assert len(maps) == 2
    for one in maps:
        assert one.shape == (1, 2, 12 - past, 12)
        torch.testing.assert_close(one.sum(-1), torch.ones(1, 2, 12 - past))
        assert torch.equal(one, one.tril(past))


def test_attention_map_times_values_is_attention():
    q, k, v = (rows(2, 3, 9, 8, seed=seed) for seed in range(3))
    torch.testing.assert_close(
        attention_map(q, k) @ v, F.scaled_dot_product_attention(q, k, v, is_causal=True), atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize("vocabulary", [2, 65, 300])
def test_first_loss_of_the_modern_dialect_is_ln_v(vocabulary):
    model = Transformer(tiny(vocabulary=vocabulary))
    tokens = torch.randint(vocabulary, (4, 17), generator=torch.Generator().manual_seed(0))
    assert model.loss(tokens[:, :-1], tokens[:, 1:]).item() == pytest.approx(math.log(vocabulary), abs=1e-6)


@pytest.mark.parametrize("dialect", ("modern", "gpt2"))
@pytest.mark.parametrize(("layers", "heads", "width"), [(1, 1, 8), (2, 4, 32), (5, 3, 96)])
def test_layers_have_12_l_c_squared_weights(dialect, layers, heads, width):
    shape = tiny(dialect, n_layer=layers, n_head=heads, width=width)
    matrices = [weight for weight in Transformer(shape).blocks.parameters() if weight.ndim == 2]
    assert sum(weight.numel() for weight in matrices) == shape.matrix_parameters == 12 * layers * width**2


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("change", [{"n_head": 4}, {"residual": False}, {"positions": False}, {"norm": False}], ids=str)
def test_reshape_changes_the_output_and_keeps_the_weights(dialect, change, lively):
    model, tokens = lively(tiny(dialect, kv_heads=0)), ids(1, 16)
    before, weights = model(tokens), {name: weight.clone() for name, weight in model.state_dict().items()}
    model.reshape(**change)
    assert not torch.allclose(model(tokens), before, atol=1e-3)
    assert model.state_dict().keys() == weights.keys()
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("silenced", ["attention.out", "down"])
def test_without_the_residual_each_half_replaces_what_came_before(dialect, silenced, lively):
    """Silence one half of one layer: with the connection the rest still speaks, without it nothing is left."""
    model, tokens = lively(tiny(dialect)), ids(1, 16)
    with torch.no_grad():
        model.blocks[0].get_submodule(silenced).weight.zero_()
    assert model(tokens).std() > 0.01
    model.reshape(residual=False)
    assert model(tokens).std() < 1e-3


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("bias", [False, True])
def test_the_seed_alone_decides_the_weights(dialect, bias):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        one = Transformer(tiny(dialect, bias=bias), seed=5).state_dict()
        torch.manual_seed(2)
        same, other = (Transformer(tiny(dialect, bias=bias), seed=seed).state_dict() for seed in (5, 6))
    assert [name for name in one if not torch.equal(one[name], same[name])] == []
    assert not torch.equal(one["embed.weight"], other["embed.weight"])


def test_dropout_draws_from_its_own_dice(lively):
    model, tokens = lively(tiny(dropout=0.5)).train(), ids(1, 16)

    def run(seed, global_seed):
        torch.manual_seed(global_seed)
        for block in model.blocks:
            block.rng = torch.Generator().manual_seed(seed)
        return model(tokens)

    with torch.random.fork_rng():
        assert torch.equal(run(0, 1), run(0, 2))
        assert not torch.equal(run(0, 1), run(3, 1))
    assert not torch.equal(run(0, 1), model.eval()(tokens))


def test_building_leaves_the_global_dice_alone():
    """A class takes turns in one process: whoever draws from the global dice changes what another run sees."""
    before = torch.get_rng_state()
    Transformer(tiny(), seed=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_forward_pass_leaves_the_global_dice_alone(lively):
    model = lively(tiny(dropout=0.5)).train()
    for block in model.blocks:
        block.rng = torch.Generator().manual_seed(0)
    before = torch.get_rng_state()
    model(ids(1, 16))
    assert torch.equal(torch.get_rng_state(), before)


def test_rotated_scores_depend_on_distance_only():
    """One query and one key, put at every pair of positions: the scores are constant along each diagonal."""
    turns = Transformer(tiny(width=16, n_head=2)).turns  # (S, D/2)
    q, k = (rows(8, seed=seed).expand(1, 16, 1, 8).contiguous() for seed in (0, 1))
    scores = rotate(q, turns)[0, :, 0] @ rotate(k, turns)[0, :, 0].T
    for distance in range(-15, 16):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-5, rtol=0)
    assert scores[0].std() > 0.1
