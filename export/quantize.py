"""The default model's encoder in 8 bits: int8 weights, uint8 activations, written only where it names noise as well.

Static quantization in QDQ form (Jacob et al. 2018, arXiv 1712.05877), ranges by minimum and maximum over packaged
pictures, clean and noisy. The stem and blocks 0-2 stay float32: noise is read from their statistics, and with
those rounded too it is named worse. Weights keep to 7 of their 8 bits, so that no sum of two products overflows
its 16 bits on a CPU without VNNI: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html.
`recipes/measure_encoder.py` measures other cuts, and 8 bits.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from imc_lite.export.quiet import quiet
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from imc_lite.bench.data import Case, load_edition
from imc_lite.bundle.copy import copy_bundle
from imc_lite.bundle.manifest import write_manifest
from imc_lite.bundle.publish import appear, check_free, work_folder
from imc_lite.bundle.store import Bundle
from imc_lite.errors import ImcError
from imc_lite.images.load import load_image
from imc_lite.models.default.onnx import OrtMLLM
from imc_lite.models.default.preprocess import preprocess
from imc_lite.noise.image import IMAGE_KINDS, apply_to_image
from imc_lite.pdc.prototypes import load_prototypes

KEPT = "blocks.2."  # the last part that stays float32
BITS = 7  # of the weights
CALIBRATION, HELD, SEED = 48, 96, 0  # pictures that ranges are taken from, and that noise is named on
MOST_LOST = 0.005  # of the share of pictures whose noise is named right


def quantize_encoder(source: Path, destination: Path) -> Bundle:
    """A bundle with its encoder in 8 bits, all or nothing; the rest is copied.

    Its prototypes belong to the float32 encoder, so the new one may take its place (`manifest.json`, `encoder.of`) only
    after it named noise as well with them, on packaged pictures that its ranges were not taken from.

    Args:
        source: a bundle of the default model's encoder, in float32.
        destination: a folder that is not there yet, in one that is.

    Raises:
        ImcError: another encoder, or one in 8 bits already; it names noise worse; or the destination cannot be written.
    """
    bundle = Bundle(source)
    if "encoder" in bundle.manifest:
        raise ImcError(f"the encoder of {source} is in 8 bits already; give the float32 bundle")
    check_free(destination)
    fitted, held = split(load_edition())
    with work_folder(destination, "choose another folder") as scratch:
        work = scratch / "bundle"
        copy_bundle(source, work)
        # From the copy: onnx refuses weights that have several names, as a deduplicated disk gives them.
        quantize_graph(work / "encoder.onnx", work / "encoder.onnx", samples(fitted), KEPT, BITS)
        facts = {k: v for k, v in bundle.manifest.items() if k not in ("format", "files")}
        encoder: dict[str, Any] = {"precision": "int8", "of": bundle.files["encoder.bin"]["sha256"]}
        facts["version"] = f"{bundle.version}-int8"
        write_manifest(work, {**facts, "encoder": encoder})
        before, after = (float(np.mean(named(OrtMLLM(folder), held, (4,)))) for folder in (source, work))
        if after < before - MOST_LOST:
            raise ImcError(
                f"the 8-bit encoder names noise right in {after:.1%} of the packaged pictures, the float32 one in "
                f"{before:.1%}: nothing is written; use the float32 one"
            )
        encoder["named_right"] = {"pictures": len(held), "float32": round(before, 4), "int8": round(after, 4)}
        write_manifest(work, {**facts, "encoder": encoder})
        appear(work, destination)
    return Bundle(destination)


def quantize_graph(source: Path, destination: Path, pixels: Iterable[np.ndarray], kept: str, bits: int) -> None:
    """Quantize what follows the node names beginning with `kept`; "" quantizes everything.

    Args:
        source: an encoder as `imc_lite.export.graphs.encoder` writes it, with its weights.
        destination: its weights go into a file of the same name, ending in .bin; it may be the source.
        pixels: float32 [1, 3, 320, 320] each; the ranges of the activations are taken from them.
        kept: the last part that stays float32, "blocks.2." for one.
        bits: of the weights, 7 or 8.

    Raises:
        ImcError: no such part.
    """

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(pixels)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(({"pixels": x} for x in self.left), None)

    model = onnx.load(str(source))
    for node in model.graph.node:
        node.name = node.output[0]
    names = [node.name for node in model.graph.node]
    last = max((i for i, name in enumerate(names) if name.startswith(kept)), default=None) if kept else -1
    if last is None:
        raise ImcError(f"{source} holds no {kept}: only the default model's encoder is known here")
    destination.unlink(missing_ok=True)
    weights = destination.with_suffix(".bin")
    weights.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as scratch, quiet():  # it advises a preprocessing that this graph has no use for
        quantize_static(
            model,
            Path(scratch) / "encoder.onnx",
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Clip", "Add", "AveragePool"],
            per_channel=True,
            reduce_range=bits == 7,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=names[: last + 1],
        )
        quantized = onnx.load(str(Path(scratch) / "encoder.onnx"))
    onnx.save(quantized, str(destination), save_as_external_data=True, location=weights.name)
    weights.chmod(destination.stat().st_mode)  # onnx makes it private; another user may run this bundle


def split(cases: Sequence[Case]) -> tuple[list[Case], list[Case]]:
    """Pictures that ranges are taken from, and others to name noise on."""
    order = np.random.default_rng(SEED).permutation(len(cases))
    return [cases[i] for i in order[:CALIBRATION]], [cases[i] for i in order[CALIBRATION : CALIBRATION + HELD]]


def samples(cases: Iterable[Case]) -> Iterator[np.ndarray]:
    """Every picture once, float32 [1, 3, 320, 320]; the kinds of noise take turns, clean among them."""
    for i, case in enumerate(cases):
        kind = ("clean", *IMAGE_KINDS)[i % (1 + len(IMAGE_KINDS))]
        image = load_image(case.path)
        yield preprocess(image if kind == "clean" else apply_to_image(image, kind, 2 + i % 4, SEED + i))[None]


def named(model: OrtMLLM, cases: Sequence[Case], severities: Sequence[int]) -> np.ndarray:
    """Whether noise is named right with the bundle's own prototypes, bool [pictures, 1 + kinds * severities]."""
    matcher = load_prototypes(model.prototypes_file(), model.identity).matcher
    views = [("clean", 0), *((kind, s) for kind in IMAGE_KINDS for s in severities)]
    rows = []
    for i, case in enumerate(cases):
        image = load_image(case.path)
        noisy = (image if kind == "clean" else apply_to_image(image, kind, s, SEED + 100_000 + i) for kind, s in views)
        verdicts = [matcher.match(model.perceive(view).stats)[0].kind for view in noisy]
        rows.append([verdict == kind for verdict, (kind, _) in zip(verdicts, views, strict=True)])
    return np.array(rows)
