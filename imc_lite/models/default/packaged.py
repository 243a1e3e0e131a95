"""`PackagedEncoder`: what of the default model's encoder names noise, from the package's own files."""

from __future__ import annotations

import io
import json
from hashlib import sha256
from importlib import resources

import numpy as np

from imc_lite.bundle.build import fill
from imc_lite.bundle.weights import encoder_tensors, read_trained
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
