"""The path to Kandinsky 2.2: a tiny one, saved in the hub's own format; both written-out loops equal diffusers'
pipelines.
"""

import fnmatch

import pytest
import torch

from core.dalle2 import real
from core.dalle2.chain import REAL_CAPTION, REAL_LENGTH, ChainConfig, chain
from core.dalle2.real import DECODER, HUB, KANDINSKY, PRIOR, blank, drawing, from_folder, imagining, pictures, read
from core.foundations.figures import by_figure
from core.foundations.hub import KINDS

WIDTH = 16  # numbers of an embedding


def lively(model, seed=0):
    """Every weight random: a fresh model's last layers are often zero."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=rng) * 0.1)
    return model.eval()


def save_prior(place):
    import json

    from diffusers import KandinskyV22PriorPipeline, PriorTransformer, UnCLIPScheduler
    from transformers import (
        CLIPImageProcessor,
        CLIPTextConfig,
        CLIPTextModelWithProjection,
        CLIPTokenizer,
        CLIPVisionConfig,
        CLIPVisionModelWithProjection,
    )

    words = {
        token: number
        for number, token in enumerate(
            ["<|startoftext|>", "<|endoftext|>", *"adeorst", *(f"{letter}</w>" for letter in "adeorst")]
        )
    }
    place.mkdir()
    (place / "vocab.json").write_text(json.dumps(words))
    (place / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(place / "vocab.json"), str(place / "merges.txt"), model_max_length=12)
    size = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "projection_dim": WIDTH,
    }
    text = CLIPTextModelWithProjection(
        CLIPTextConfig(vocab_size=len(words), max_position_embeddings=12, bos_token_id=0, eos_token_id=1, **size)
    )
    image = CLIPVisionModelWithProjection(CLIPVisionConfig(image_size=8, patch_size=4, **size))
    prior = PriorTransformer(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        embedding_dim=WIDTH,
        num_embeddings=12,
        additional_embeddings=4,
    )
    scheduler = UnCLIPScheduler(
        variance_type="fixed_small_log",
        prediction_type="sample",
        num_train_timesteps=1000,
        clip_sample=True,
        clip_sample_range=10.0,
    )
    pipe = KandinskyV22PriorPipeline(
        lively(prior), lively(image, 1), lively(text, 2), tokenizer, scheduler, CLIPImageProcessor(size=8, crop_size=8)
    )
    pipe.save_pretrained(place / "saved", safe_serialization=True)
    return place / "saved"


def save_decoder(place):
    from diffusers import DDPMScheduler, KandinskyV22Pipeline, UNet2DConditionModel, VQModel

    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=16,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        addition_embed_type="image",
        encoder_hid_dim_type="image_proj",
        encoder_hid_dim=WIDTH,
        attention_head_dim=4,
        resnet_time_scale_shift="scale_shift",
        class_embed_type=None,
    )
    movq = VQModel(
        block_out_channels=(32, 64),
        num_vq_embeddings=12,
        down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=32,
        norm_type="spatial",
        vq_embed_dim=4,
    )
    scheduler = DDPMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="linear",
        variance_type="learned_range",
        clip_sample=True,
        clip_sample_range=2.0,
    )
    KandinskyV22Pipeline(lively(unet), scheduler, lively(movq, 1)).save_pretrained(place, safe_serialization=True)
    return place


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("kandinsky")
    return {PRIOR: save_prior(place / "prior"), DECODER: save_decoder(place / "decoder")}


@pytest.fixture(scope="module")
def pipes(folders):
    return {name: from_folder(folder, name) for name, folder in folders.items()}


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_the_prior_is_diffusers_pipeline(pipes, scale):
    pipe = pipes[PRIOR]
    *_, (_, mine) = imagining(pipe, "a red rose", 2, 5, scale, 7)
    theirs = pipe(
        ["a red rose"],
        num_images_per_prompt=2,
        num_inference_steps=5,
        guidance_scale=scale,
        generator=torch.Generator().manual_seed(7),
    )
    torch.testing.assert_close(mine, theirs.image_embeds, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(blank(pipe).expand(2, -1), theirs.negative_image_embeds)
    assert not torch.allclose(mine[0], mine[1])


def test_the_decoder_is_diffusers_pipeline(pipes):
    pipe, told, nothing = pipes[DECODER], *torch.randn(2, 2, WIDTH, generator=torch.Generator().manual_seed(1))
    told, nothing = torch.stack([told[0].expand(WIDTH), told[1].expand(WIDTH)]), nothing[0].expand(1, WIDTH)
    *_, (latents, _) = drawing(pipe, told, nothing, 4, 3.0, 5, side=16)
    theirs = pipe(
        told, nothing.expand(2, -1), 16, 16, 4, 3.0, generator=torch.Generator().manual_seed(5), output_type="np"
    ).images
    mine = pictures(pipe, latents)
    assert mine.shape[-1] == theirs.shape[1]
    torch.testing.assert_close(mine.permute(0, 2, 3, 1), torch.from_numpy(theirs), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", HUB)
def test_all_that_a_pipeline_has_is_fetched(name, folders):
    files = [file.relative_to(folders[name]).as_posix() for file in folders[name].rglob("*") if file.is_file()]
    assert all(any(fnmatch.fnmatch(file, pattern) for pattern in KINDS["kandinsky"].files) for file in files), files


def test_the_chain_runs_on_it(pipes, monkeypatch):
    def at_hand(name):
        return pipes[name]
        yield

    monkeypatch.setattr(real, "pipe_of", at_hand)
    plain = real.drawing
    monkeypatch.setattr(real, "drawing", lambda *told: plain(*told, side=16))
    steps = list(chain(ChainConfig(model=KANDINSKY, prompt="a red rose", pictures=2, steps=3, prior_steps=3)))
    assert steps[-1].pixels.shape[:3] == (2, 2, 3) and steps[-1].ways == real.WAYS
    figures = by_figure(result for step in steps for result in step.figures)
    text = read(pipes[PRIOR], "a red rose", 1, 1.0)[0][0]
    *_, (_, mine) = imagining(pipes[PRIOR], "a red rose", 2, 3, 1.0, 0)
    cosine = float(torch.nn.functional.cosine_similarity(mine, text[None]).mean())
    assert figures[REAL_CAPTION].measured == pytest.approx(cosine, abs=1e-5)
    assert figures[REAL_LENGTH].measured == pytest.approx(float(mine.norm(dim=-1).mean()), rel=1e-5)


def test_without_a_gpu_it_says_what_it_needs(monkeypatch, refusal):
    class Bare:
        gpu, device = None, "cpu"

    monkeypatch.setattr(real, "this_machine", Bare)
    told = refusal(lambda: next(chain(ChainConfig(model=KANDINSKY))))
    assert "needs a GPU" in told and "small one" in told
