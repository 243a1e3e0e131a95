"""`PackagedEncoder`: what of the default model's encoder names noise, from the package's own files."""

from __future__ import annotations

import io
import json
from contextlib import ExitStack
from functools import cached_property
from hashlib import sha256
from importlib import resources
from pathlib import Path

import numpy as np

from imc_lite.bundle import contents
from imc_lite.bundle.build import fill
from imc_lite.bundle.weights import encoder_tensors, read_trained
from imc_lite.models.base import BaseMLLM
from imc_lite.models.default.preprocess import preprocess
from imc_lite.models.default.spec import ENCODER
from imc_lite.models.onnx_sessions import CPU, open_session, runtime


class PackagedEncoder:
    """Names noise for models whose own tower tells it worse (`imc_lite.pdc.fit.build`).

    Nothing is fetched, built or written for it: neither the default model's base weights nor its bundle are needed.

    Attributes:
        identity: SHA-256 of its weights ("encoder") and of its preprocessing ("preprocessing"), as the default model's.
    """

    def __init__(self) -> None:
        """Open it, on one CPU thread.

        Raises:
            ImcError: ONNX Runtime is not installed, or the package's files do not belong together.
        """
        ort, assets = runtime(), resources.files("imc_lite.assets")
        layout = json.loads((assets / "layout.json").read_text(encoding="utf-8"))["encoder"]
        with resources.as_file(assets / "default.safetensors") as file:
            tensors = dict(encoder_tensors(read_trained(file, "encoder.")))
        weights = io.BytesIO()
        fill(weights, layout, tensors.items())
        steps = json.loads((assets / "preprocessing.json").read_text(encoding="utf-8"))
        self.identity = {
            "encoder": sha256(weights.getbuffer()).hexdigest(),
            "preprocessing": sha256(json.dumps(steps, sort_keys=True).encode()).hexdigest(),
        }
        shallow = ("stem.", *(f"{block.name}." for block in ENCODER.shallow_blocks))
        self._weights = {
            name: ort.OrtValue.ortvalue_from_numpy(tensor)
            for name, tensor in tensors.items()
            if name.startswith(shallow)
        }
        graph = (assets / "shallow.onnx").read_bytes()
        self._session = open_session("shallow.onnx", graph, 1, [CPU], self._weights)

    def stats(self, image: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3] RGB -> shallow statistics float32 [1664], as the default model's `perceive` gives them."""
        return self._session.run(["stats"], {"pixels": preprocess(image)[None]})[0][0]


class DefaultEncoder(BaseMLLM):
    """The default model without its language model, from the package's own files: it names noise and answers nothing.

    Implements of `imc_lite.models.base.MLLM` what `IMC.inspect` and `IMC.restore` ask for.
    """

    id: str = "default"
    statistics: str = "quadrants"
    runtime: tuple[str, ...] = ("onnxruntime",)

    def __init__(self, threads: int = 1) -> None:
        """Open it.

        Args:
            threads: that judge pictures side by side; one picture has one.

        Raises:
            ImcError: as `PackagedEncoder`.
        """
        self.threads, self._encoder = threads, PackagedEncoder()
        self.identity = self._encoder.identity
        self._files = ExitStack()  # of a package that lies in an archive they are temporary

    @cached_property
    def version(self) -> str:
        """That of the default model's bundle."""
        return contents.sha256(self._asset("default.safetensors"))[:12]

    def prototypes_file(self) -> Path:
        """Those in the package."""
        return self._asset("prototypes.safetensors")

    def _asset(self, name: str) -> Path:
        return self._files.enter_context(resources.as_file(resources.files("imc_lite.assets") / name))

    def noise_statistics(self, image: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3] RGB -> shallow statistics float32 [1664]."""
        return self._encoder.stats(image)

    def replicas(self) -> list[DefaultEncoder]:
        """Itself for each thread: passes do not wait for one another."""
        return [self] * self.threads
