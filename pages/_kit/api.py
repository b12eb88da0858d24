"""The public API: one endpoint per experiment, made from its Config."""

import inspect
import time
from collections.abc import Iterator
from typing import Any

import gradio as gr

from core.foundations.experiment import Experiment, config_of, following, kind
from core.foundations.machine import this_machine
from core.foundations.recorder import Recorder
from core.foundations.turns import MOST_ACTIVE, turns
from pages._kit.live import DEADLINE_SECONDS, log


def endpoint(one: Experiment) -> None:
    """One public endpoint per experiment, named like `nanogpt_train`: its settings in, the terminal's JSON out.

    It yields {"steps", "doing"} at once and while it runs (at most twice a second), and the whole result at the end.
    """
    fields = [field for field in one.settings if kind(field) is not bytes]
    followers = following(one.config_type)  # None stands for the default that goes with a choice

    def call(*values: Any) -> Iterator[dict[str, Any]]:
        try:
            given = dict(zip([field.name for field in fields], values, strict=True))
            config = config_of(one.config_type, {name: value for name, value in given.items() if value is not None})
        except ValueError as problem:
            raise gr.Error(str(problem), print_exception=False) from None
        # Gradio can only close a generator that has yielded: one cancelled in its first unit would keep its seat
        yield {"steps": 0, "doing": "starting"}
        recorder, said, deadline = Recorder(one, config), 0.0, time.monotonic() + DEADLINE_SECONDS
        taken = turns(this_machine().device).take(one.run(config))
        try:
            for step in taken:
                recorder.add(step)
                if time.monotonic() > said + 0.5:
                    said = time.monotonic()
                    yield {"steps": recorder.steps, "doing": step.doing}
                if time.monotonic() > deadline:
                    break
        except ValueError as problem:
            raise gr.Error(str(problem), print_exception=False) from None
        except Exception:
            log.exception("run of %s failed", one.key)
            raise gr.Error("Something went wrong inside this run; it has been logged.", print_exception=False) from None
        finally:
            taken.close()
        yield recorder.report()

    words = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = [
        inspect.Parameter(
            field.name, words, default=None if field.name in followers else field.default, annotation=kind(field)
        )
        for field in fields
    ]
    call.__signature__ = inspect.Signature(signature, return_annotation=dict)  # type: ignore[attr-defined]
    call.__annotations__ = {field.name: kind(field) for field in fields} | {"return": dict}
    call.__doc__ = one.question
    gr.api(call, api_name=one.key, concurrency_id="runs", concurrency_limit=MOST_ACTIVE)
