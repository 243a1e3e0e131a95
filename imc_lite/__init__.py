"""Medical visual question answering that holds up on noisy images and garbled questions.

    from imc_lite import IMC
    IMC.from_pretrained().answer("img.png", "Is there a pneumothorax?")

Names are imported when first used, so that `import imc_lite` costs nothing.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

# What we import would report to its makers; these are read when it is imported, so they stand here, before all else.
for _name in (
    "ORT_DISABLE_TELEMETRY",  # ONNX Runtime, from 1.29 on: device, processor and sessions, also from a server at rest
    "HF_HUB_DISABLE_TELEMETRY",  # huggingface_hub: a session's id in every request for a checkpoint
    "VLLM_NO_USAGE_STATS",  # vLLM: model, hardware and settings, at every start
    "DISABLE_SAFETENSORS_CONVERSION",  # transformers: asks a service to convert checkpoints without safetensors
):
    if not os.environ.get(_name):
        os.environ[_name] = "1"
del _name

__version__ = "0.2.0"

_HOMES = {
    "IMC": "pipeline",
    "MLLM": "models.base",
    "BaseMLLM": "models.base",
    "Deadline": "models.deadline",
    "DeadlineError": "models.deadline",
    "Generation": "models.base",
    "Perception": "models.base",
    "TokenLogprob": "models.base",
    "ImcError": "errors",
    "Edit": "results",
    "ImageReport": "results",
    "Noise": "results",
    "QuestionReport": "results",
    "Result": "results",
    "load_image": "images.load",
}
__all__ = [
    "IMC",
    "MLLM",
    "BaseMLLM",
    "Deadline",
    "DeadlineError",
    "Edit",
    "Generation",
    "ImageReport",
    "ImcError",
    "Noise",
    "Perception",
    "QuestionReport",
    "Result",
    "TokenLogprob",
    "__version__",
    "load_image",
]

if TYPE_CHECKING:
    from imc_lite.errors import ImcError
    from imc_lite.images.load import load_image
    from imc_lite.models.base import MLLM, BaseMLLM, Generation, Perception, TokenLogprob
    from imc_lite.models.deadline import Deadline, DeadlineError
    from imc_lite.pipeline import IMC
    from imc_lite.results import Edit, ImageReport, Noise, QuestionReport, Result


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
