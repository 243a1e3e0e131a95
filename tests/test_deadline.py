"""A deadline reaches into the pass that runs, whatever computes it, and leaves the model as it was."""

import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest

from imc_lite import Deadline, DeadlineError

LONG = "7" * 1900  # a token each: many seconds of one pass


def test_a_long_pass_of_onnx_runtime_is_interrupted(default_model):
    before = default_model.generate("What is shown?", None, 8)
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(DeadlineError):
        default_model.generate(LONG, None, 8, deadline=Deadline(stop=stop))
    # Longer on a machine that others use too; the whole pass takes many times that.
    began = time.monotonic()
    assert default_model.generate("What is shown?", None, 8) == before
    short = time.monotonic() - began
    stop.clear()
    threading.Timer(0.3, stop.set).start()
    began = time.monotonic()
    with pytest.raises(DeadlineError):
        default_model.score(LONG, ["yes", "no"], deadline=Deadline(stop=stop))
    assert time.monotonic() - began < 1.3 + 10 * short


class OverInside(Deadline):
    """Over as soon as a pass begins, however short that is."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        super().__init__(stop=self.stop)

    @contextmanager
    def interrupting(self, interrupt):
        with super().interrupting(interrupt):
            self.stop.set()
            interrupt()
            yield


def test_an_interrupted_pass_is_no_fault_of_the_model(default_model):
    for call in (
        lambda: default_model.generate("What is shown?", None, 8, deadline=OverInside()),
        lambda: default_model.score("What is shown?", ["yes"], deadline=OverInside()),
    ):
        with pytest.raises(DeadlineError):
            call()


@pytest.mark.parametrize("verb", ["generate", "score"])
def test_torch_looks_before_every_layer(verb, llava_checkpoint):
    from imc_lite.models.open import open_mllm

    model = open_mllm(llava_checkpoint, offline=True, device="cpu")
    tokens = model.perceive(np.full((48, 48, 3), 127, np.uint8)).tokens
    layers = model.model.model.language_model.layers
    stop, ran = threading.Event(), []
    hooks = [
        layers[0].register_forward_hook(lambda *_: stop.set()),
        layers[1].register_forward_hook(lambda *_: ran.append(1)),
    ]
    arguments = ("What?", tokens, 4) if verb == "generate" else ("What?", ["yes"], tokens)
    with pytest.raises(DeadlineError):
        getattr(model, verb)(*arguments, deadline=Deadline(stop=stop))
    assert not ran
    for hook in hooks:
        hook.remove()
    # Nothing of the deadline stays with the model.
    assert not any(layer._forward_pre_hooks for layer in layers)
    getattr(model, verb)(*arguments)


def test_what_is_not_interrupted_goes_on(default_model):
    expected = default_model.generate("What is shown?", None, 8)
    assert default_model.generate("What is shown?", None, 8, deadline=Deadline(600, threading.Event())) == expected


def test_the_earlier_of_two_ends_counts():
    stop = threading.Event()
    stopped = Deadline(stop=stop).within(600)
    stopped.check()
    stop.set()
    for deadline in (stopped, Deadline(0.001).within(600), Deadline(600).within(0.001), Deadline().within(0.001)):
        time.sleep(0.01)
        with pytest.raises(DeadlineError):
            deadline.check()
