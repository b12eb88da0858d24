"""What the tests share: small models with every weight alive, and one way to ask for a refusal in one sentence."""

from jaxtyping import install_import_hook

# The shapes in the signatures of the tensor files are checked while the tests run, and only then.
install_import_hook(
    ["core.foundations.sampling", "core.foundations.corpus", "core.foundations.transformer"], "beartype.beartype"
)

import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

from core.foundations.transformer import Transformer  # noqa: E402

torch.set_num_threads(
    1
)  # small models gain nothing from a second thread, and lose a hundredfold when another process has its core

settings.register_profile("small", max_examples=40, deadline=None, derandomize=True)
settings.load_profile("small")


@pytest.fixture(scope="session")
def lively():
    """A model whose every weight is random.

    A fresh one is partly zero, and a zero passes many tests for the wrong reason.
    """

    def make(shape, seed=0):
        model, rng = Transformer(shape), torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in model.parameters():
                weight.copy_(torch.randn(weight.shape, generator=rng) * 0.3)
        return model.eval()

    return make


@pytest.fixture(scope="session")
def refusal():
    """The one sentence with which a call refuses.

    A subclass such as UnicodeEncodeError speaks Python, not English: not accepted.
    """

    def ask(call, *arguments, **named):
        try:
            call(*arguments, **named)
        except ValueError as problem:
            assert type(problem) is ValueError or type(problem).__module__.startswith("core."), (
                f"{type(problem).__name__}: {problem}"
            )
            text = str(problem)
            assert text and "\n" not in text and len(text) < 300, text
            return text
        pytest.fail("nothing was refused")

    return ask
