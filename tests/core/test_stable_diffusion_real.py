"""real: a tiny Stable Diffusion in the hub's own format, our loop equal to its pipeline, and what is refused."""

import json
from types import SimpleNamespace

import pytest
import torch

from core.foundations.diffusion import sampling
from core.foundations.figures import by_figure
from core.foundations.small_diffusion import roll
from core.foundations.weights import models
from core.stable_diffusion import real
from core.stable_diffusion.denoise import BY_HAND, WORDS_AT, DenoiseConfig, denoise
from core.stable_diffusion.img2img import Img2imgConfig, changing, given_picture, img2img
from core.stable_diffusion.latents import COMPRESSION, LatentsConfig, latents
from core.stable_diffusion.real import Real, denoiser_of, from_folder, shown, thinned, told_by
from core.stable_diffusion.schedulers import DEFAULTS_CHANGE, EULER, SOLVERS, WRITTEN_OUT, SchedulersConfig, schedulers
from core.stable_diffusion.terminal_snr import BRIGHTER, LEFT, LEVELS, TerminalSnrConfig, terminal_snr
from core.stable_diffusion.words import WordsConfig, columns_of, words

NAME = "stable-diffusion-v1-5/stable-diffusion-v1-5"
SCHEDULER = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "num_train_timesteps": 1000}
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Half precision, as the hub's variant fp16; latents of 4 x 16 x 16, pictures of 32 x 32."""
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    place = tmp_path_factory.mktemp("tiny")
    tokenizer = tiny_tokenizer(place / "tokenizer")
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 32),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )
    kinds = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    vae = AutoencoderKL(
        latent_channels=4, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, sample_size=32, **kinds
    )
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=12,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    for number, part in enumerate((unet, vae, text)):
        roll(part, torch.Generator().manual_seed(number))
    scheduler = PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.to(torch.float16).save_pretrained(place, variant="fp16", safe_serialization=True)
    return place


def tiny_tokenizer(place):
    """Letters, and 'red' as one token: the two files of the hub, read by transformers."""
    from transformers import CLIPTokenizer

    place.mkdir()
    pieces = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "re", "red</w>", "<|startoftext|>", "<|endoftext|>"]
    (place / "vocab.json").write_text(json.dumps({piece: number for number, piece in enumerate(pieces)}))
    (place / "merges.txt").write_text("#version: 0.2\nr e\nre d</w>\n")
    ends = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
    }
    (place / "tokenizer_config.json").write_text(
        json.dumps(ends | {"model_max_length": 12, "tokenizer_class": "CLIPTokenizer"})
    )
    return CLIPTokenizer.from_pretrained(place)


@pytest.fixture(scope="module")
def denoiser(folder):
    return from_folder(folder)


@pytest.fixture
def on_a_gpu(monkeypatch, folder):
    """As if there were a GPU and the folder had been fetched; it computes on the CPU all the same."""
    monkeypatch.setattr(real, "this_machine", lambda: SimpleNamespace(gpu="T4", device="cpu"))
    monkeypatch.setattr(real, "hub_folder", lambda name: folder)
    monkeypatch.setattr(real, "check_memory", lambda need, what: None)
    yield
    models().held.pop(NAME, None)


def pipe_of(folder, kind):
    from diffusers import DDIMScheduler

    pipe = kind.from_pretrained(
        folder, variant="fp16", safety_checker=None, requires_safety_checker=False, dtype=torch.float32
    )
    pipe.scheduler = DDIMScheduler.from_config(
        pipe.scheduler.config, clip_sample=False
    )  # the default would cut latents, which are no pixels
    pipe.set_progress_bar_config(disable=True)
    return pipe


# --- the same as diffusers --------------------------------------------------------------------------------------------


def test_a_folder_of_the_hub_says_what_it_is(denoiser):
    assert isinstance(denoiser, Real) and denoiser.places == (4, 16, 16) and denoiser.side == 32
    assert (denoiser.schedule, denoiser.predicts, denoiser.offset, denoiser.clip) == (
        "scaled_linear",
        "epsilon",
        1,
        False,
    )
    assert denoiser.scale == pytest.approx(0.18215) and denoiser.noise(2, 0).shape == (2, 4, 16, 16)


def test_our_loop_is_the_pipeline(denoiser, folder):
    from diffusers import StableDiffusionPipeline

    x, prompts = denoiser.noise(2, 3), ["a red cat", "dog"]
    for moment in sampling(
        denoiser.network(denoiser.states(prompts)),
        x,
        (denoiser.schedule, denoiser.predicts),
        6,
        4.0,
        offset=denoiser.offset,
    ):
        x = moment.after
    theirs = pipe_of(folder, StableDiffusionPipeline)(
        prompts, num_inference_steps=6, guidance_scale=4.0, latents=denoiser.noise(2, 3), output_type="pt"
    )
    torch.testing.assert_close(denoiser.decode(x), theirs.images, atol=2e-4, rtol=1e-3)


def test_image_to_image_is_the_pipeline(denoiser, folder):
    from diffusers import StableDiffusionImg2ImgPipeline

    config = Img2imgConfig(prompt="a red cat", strength=0.5, steps=6)
    latents = denoiser.encode(given_picture(config, denoiser)[0])
    *_, last = changing(denoiser, config, latents, denoiser.noise(1, 5), 0.5)
    theirs = pipe_of(folder, StableDiffusionImg2ImgPipeline)(
        "a red cat",
        image=latents,
        strength=0.5,
        num_inference_steps=6,
        guidance_scale=config.scale,
        generator=torch.Generator().manual_seed(5),
        output_type="latent",
    )
    torch.testing.assert_close(last.after, theirs.images, atol=1e-3, rtol=1e-3)


def test_many_rows_go_in_parts_and_come_out_the_same(denoiser, monkeypatch):
    x, states = denoiser.noise(5, 0), denoiser.states(["a", "red", "cat", "dog", "x"])
    whole = denoiser(x, 301, states)
    monkeypatch.setattr(real, "ROWS", 2)
    torch.testing.assert_close(denoiser(x, 301, states), whole, atol=1e-5, rtol=1e-5)


def test_encode_and_decode_scale(denoiser):
    picture = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    latents = denoiser.encode(picture)
    with torch.no_grad():
        plain = denoiser.vae.encode(2 * picture - 1).latent_dist.mean
        again = (denoiser.vae.decode(plain).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(latents, plain * 0.18215, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(denoiser.decode(latents), again, atol=1e-4, rtol=1e-3)


def test_words_of_several_tokens_keep_together(denoiser):
    columns = dict(columns_of(denoiser, "red cat"))
    assert columns == {"start": [0], "red": [1], "cat": [2, 3, 4], "end": [5], "padding": list(range(6, 12))}


def test_words_and_img2img_run_on_it(on_a_gpu):
    steps = list(words(WordsConfig(model=NAME, prompt="a red cat", changed="a big cat", steps=2, rounds=1)))
    assert "2.1" in steps[0].doing or "GB" in steps[0].doing
    drawn = [step for step in steps if step.pixels is not None]
    assert drawn[-1].pixels.shape == (4, 3, 32, 32) and drawn[-1].heat.shape[-2:] == (16, 16) and drawn[-1].figures
    assert len(drawn[-1].sweep) == 3  # without, with words, with both
    last = list(img2img(Img2imgConfig(model=NAME, prompt="a red cat", steps=2, rounds=1)))[-1]
    assert last.figures and last.sweep[-1][0] == 1.0


def finished(steps):
    """The last Step, its figures by name; the first one says what the model needs, and no judge of shapes was asked."""
    steps = list(steps)
    assert "4.1 GB" in steps[0].doing
    figures = by_figure(steps[-1].figures)
    assert figures and not any("judge" in figure.name or "named right" in figure.name for figure in figures)
    assert any(figure.headline for figure in figures)
    assert all(
        result.measured is None or torch.isfinite(torch.tensor(float(result.measured))) for result in figures.values()
    )
    return steps[-1], figures


def test_denoise_runs_on_it_step_by_step_as_diffusers(on_a_gpu):
    last, figures = finished(denoise(DenoiseConfig(model=NAME, prompt="a red cat", steps=6, row=7, column=3)))
    assert (
        last.predicts == "epsilon"
        and last.numbers == 4 * 16 * 16
        and last.latent.shape == (4, 16, 16)
        and last.pictures.shape == (5, 3, 32, 32)
    )
    assert last.off < 1e-4 and last.sure is None
    by_hand = figures[BY_HAND]
    assert by_hand.measured == pytest.approx(by_hand.expected, abs=1e-4)
    assert 1 <= figures[WORDS_AT].measured <= 6 and last.change > 0
    sums = dict(last.sums)
    assert (sums["free"], sums["told"]) == (sums["said free"], sums["said told"])


def test_schedulers_run_on_it_with_its_own_settings(on_a_gpu):
    last, figures = finished(schedulers(SchedulersConfig(model=NAME, prompt="a red cat", steps=6)))
    assert last.prompts == ("a red cat",) and [(name, count) for name, count, *_ in last.table] == [
        (name, count) for count in (1, 2, 4, 6) for name in SOLVERS
    ]
    assert figures[WRITTEN_OUT].measured < 1e-4 and figures[EULER].measured < 1e-2
    assert figures[DEFAULTS_CHANGE].measured > 0 and len(last.script) == 3


def test_latents_run_on_it(on_a_gpu):
    last, figures = finished(latents(LatentsConfig(model=NAME)))
    assert (
        (last.side, last.grid) == (32, 16) and last.latents.shape == (4, 16, 16) and last.preview.shape == (3, 16, 16)
    )
    assert figures[COMPRESSION].measured == figures[COMPRESSION].expected == 3
    assert [name for name, *_ in last.kinds] and last.classified == 0


def test_terminal_snr_runs_on_it_without_what_noise_cannot_say(on_a_gpu):
    last, figures = finished(terminal_snr(TerminalSnrConfig(model=NAME, prompt="a red cat", steps=4, pictures=5)))
    assert figures[LEFT].measured == pytest.approx(0.0683, abs=0.02)
    assert figures[LEFT].expected == pytest.approx(0.0683, abs=1e-4)
    assert (
        not last.rescales
        and last.rescaled_row is None
        and last.ideal == ()
        and len(last.levels) == len(last.rows) == len(LEVELS)
    )
    assert BRIGHTER in figures and not any("white backgrounds" in figure.name for figure in figures)


@pytest.mark.parametrize(
    "run, config", [(denoise, DenoiseConfig), (schedulers, SchedulersConfig), (terminal_snr, TerminalSnrConfig)]
)
def test_a_prompt_is_read_as_the_model_reads_it(run, config, on_a_gpu, refusal):
    assert "at most 10 tokens" in refusal(lambda: list(run(config(model=NAME, prompt="red " * 11))))
    assert "prompt is empty" in refusal(lambda: list(run(config(model=NAME, prompt=" "))))


def test_a_large_grid_is_sent_thinned():
    grid = torch.randn(4, 64, 64, generator=torch.Generator().manual_seed(0))
    assert thinned(grid).shape == (4, 16, 16) and thinned(grid)[1, 0, 3] == grid[1, 2, 14]
    assert thinned(grid).std() == pytest.approx(1, abs=0.1)  # a mean would be quieter
    assert torch.equal(thinned(grid[:, :8, :8]), grid[:, :8, :8])


def test_large_pictures_are_shown_small():
    assert shown(torch.rand(1, 3, 512, 512)).shape == (1, 3, 96, 96)
    small = torch.rand(1, 3, 32, 32)
    assert shown(small) is small


# --- what is refused --------------------------------------------------------------------------------------------------


def load(name):
    return list(denoiser_of(name, lambda told: told))


def test_only_the_list_is_offered(refusal):
    assert "must be one of" in refusal(lambda: load("runwayml/stable-diffusion-v1-5"))


def test_without_a_gpu_it_says_so(monkeypatch, refusal):
    monkeypatch.setattr(real, "this_machine", lambda: SimpleNamespace(gpu=None, device="cpu"))
    told = refusal(lambda: load(NAME))
    assert "needs a GPU with 4.1 GB" in told and "small one" in told


def test_memory_is_asked_for_before_anything_is_fetched(on_a_gpu, monkeypatch, refusal):
    monkeypatch.undo()
    monkeypatch.setattr(real, "this_machine", lambda: SimpleNamespace(gpu="T4", device="cpu"))
    monkeypatch.setattr("core.foundations.base_model.free_bytes", lambda: 1e9)
    monkeypatch.setattr(real, "hub_folder", lambda name: pytest.fail("fetched"))
    assert "needs 4.1 GB of memory, and 1.0 GB are free" in refusal(lambda: load(NAME))


def test_pickles_are_never_read(folder, tmp_path, refusal):
    import shutil

    shutil.copytree(folder, tmp_path / "pickled")
    weights = next((tmp_path / "pickled" / "unet").glob("*.safetensors"))
    weights.rename(weights.with_suffix(".bin"))
    assert "no safetensors for its unet" in refusal(lambda: from_folder(tmp_path / "pickled"))


@pytest.mark.parametrize(
    "other",
    [{"beta_schedule": "linear"}, {"beta_end": 0.02}, {"num_train_timesteps": 500}, {"prediction_type": "flow"}],
)
def test_another_schedule_is_refused(other, refusal):
    assert told_by(SCHEDULER) == ("scaled_linear", "epsilon", 0)
    assert told_by(SCHEDULER | {"prediction_type": "v_prediction", "steps_offset": 1})[1:] == ("v_prediction", 1)
    assert "scheduler of this model" in refusal(lambda: told_by(SCHEDULER | other))


def test_too_long_a_prompt_is_refused(denoiser, refusal):
    assert "at most 10 tokens" in refusal(lambda: denoiser.states(["red " * 11]))
    assert denoiser.states(["red " * 10]).shape == (1, 12, 16)
