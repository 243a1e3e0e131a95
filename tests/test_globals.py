"""What belongs to the whole process, and so to whoever calls the library, is left as it was found."""

import logging
import os
import sys
import warnings
from contextlib import contextmanager

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx", reason="models are exported with onnx; it comes with imc-lite[export]")

from huggingface_hub.utils import are_progress_bars_disabled  # noqa: E402
from imc_lite.export import quantize  # noqa: E402
from imc_lite.export.hf import export_checkpoint  # noqa: E402
from tiny_models import tiny  # noqa: E402
from transformers.utils import logging as said  # noqa: E402

from imc_lite import IMC  # noqa: E402

QUESTION = "Is the heart enlarged?"
QUANTIZER = "onnxruntime.quantization.matmul_nbits_quantizer"  # configures the root logger when it is imported


def settings():
    numpy_state = np.random.get_state()
    return {
        "threads of torch": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "random numbers": (torch.get_rng_state().tolist(), numpy_state[1].tolist(), numpy_state[2]),
        "gradients": torch.is_grad_enabled(),
        "transformers": (said.get_verbosity(), said.is_progress_bar_enabled(), are_progress_bars_disabled()),
        "root logger": (logging.root.handlers[:], logging.root.level, logging.root.manager.disable),
        "warnings": warnings.filters[:],
        "output": (sys.stdout, sys.stderr),
        "environment": dict(os.environ),
    }


@contextmanager
def unchanged():
    """Fails where settings are not found again: unusual ones, and a root logger as Python begins with."""
    handlers, before = logging.root.handlers, settings()
    try:
        logging.root.handlers = []
        torch.set_num_threads(before["threads of torch"][0] + 1)
        said.set_verbosity_error()
        said.disable_progress_bar()
        mine = settings()
        yield
        found = settings()
    finally:
        logging.root.handlers = handlers
        torch.set_num_threads(before["threads of torch"][0])
        said.set_verbosity(before["transformers"][0])
        said.enable_progress_bar()
    assert [name for name in mine if found[name] != mine[name]] == []


def test_opening_and_answering(llava_checkpoint, chest):
    with unchanged():
        imc = IMC.from_pretrained(llava_checkpoint, threads=7, offline=True, sms=False)
        imc.answer(chest, QUESTION, max_new_tokens=2)


@pytest.mark.slow
def test_exporting(llava_checkpoint, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, QUANTIZER, raising=False)
    with unchanged():
        export_checkpoint(str(llava_checkpoint), tmp_path / "b", precision="int4", offline=True)
    assert QUANTIZER in sys.modules, "what configures the root logger was not even imported"
    with pytest.warns(UserWarning, match="No custom function registered for 'aten::__ior_'"):
        torch.onnx.unregister_custom_op_symbolic("aten::__ior_", 18)


@pytest.mark.slow
def test_quantizing_the_encoder(default_bundle, tmp_path):
    picture, made = np.zeros((1, 3, 320, 320), np.float32), tmp_path / "encoder.onnx"
    with unchanged():
        quantize.quantize_graph(default_bundle / "encoder.onnx", made, [picture], quantize.KEPT, quantize.BITS)
    assert made.exists()


def test_a_wrapped_model_is_put_into_evaluation_mode_and_nothing_else(chest):
    """As the documentation says."""
    model, processor = tiny("llava")
    model.train()
    own = {"training", "_output_capturing_hooks_installed"}  # the second is a note that transformers makes

    def looks():
        modules = dict(model.named_modules())
        return {name: {k: v for k, v in vars(m).items() if k not in own} for name, m in modules.items()}

    before = looks()
    IMC.from_pretrained(model, processor=processor, sms=False).answer(chest, QUESTION, max_new_tokens=2)
    assert looks() == before
    assert not any(module.training for module in model.modules())
