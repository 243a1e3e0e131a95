"""The encoder in 8 bits beside float32 and PyTorch: speed, noise named right, answers.

    python recipes/measure_encoder.py --bundle BUNDLE -o recipes/results/encoder.json

Packaged pictures: ranges are taken from 48, everything is measured on 96 others. One thread, in turns within one
process: machines drift, so ratios are taken round by round. PyTorch runs eagerly, its affine folded into the
convolutions beforehand.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from history import processor_name
from imc_lite.export.quantize import BITS, CALIBRATION, KEPT, named, quantize_encoder, quantize_graph, samples, split
from model import ConvAffine, Encoder
from onnxruntime.quantization import QuantType, quantize_dynamic
from safetensors.torch import load_file
from tqdm import tqdm

from imc_lite.bench.data import Case, load_edition
from imc_lite.bench.plan import Options, make_plan
from imc_lite.bench.stats import interval
from imc_lite.bundle.copy import copy_bundle
from imc_lite.bundle.manifest import write_manifest
from imc_lite.bundle.store import Bundle
from imc_lite.images.load import load_image
from imc_lite.models.default.onnx import OrtMLLM
from imc_lite.noise.image import apply_to_image
from imc_lite.pdc.prototypes import load_prototypes
from imc_lite.pipeline import IMC

SHIPPED = "int8 after block 2"
OTHERS = {
    "int8 throughout": ("", BITS),
    "int8 after block 0": ("blocks.0.", BITS),
    "int8 after block 5": ("blocks.5.", BITS),
    "int8 after block 2, 8-bit weights": (KEPT, 8),
}
SEVERITIES = (2, 4)
NOISES = ("gaussian", "low_contrast", "pixelation")  # that answers are asked under, at severity 4
QUANTILES = (0.05, 0.5, 0.95)
ROUNDS = 60


def eager() -> Encoder:
    """The encoder in PyTorch with the packaged weights, folded once."""
    import imc_lite.assets

    weights = load_file(Path(imc_lite.assets.__file__).parent / "default.safetensors")
    encoder = Encoder().eval()
    for name, module in encoder.named_modules():
        if isinstance(module, ConvAffine):
            pair = weights[f"encoder.{name}.weight"].float(), weights[f"encoder.{name}.bias"].float()
            module.folded = lambda pair=pair: pair
    return encoder


def variant(bundle: Bundle, folder: Path, write: Callable[[Path], None]) -> OrtMLLM:
    """A copy of the bundle with another encoder, taken for the float32 one whatever it names."""
    copy_bundle(bundle.folder, folder)
    write(folder / "encoder.onnx")
    facts = {k: v for k, v in bundle.manifest.items() if k not in ("format", "files")}
    write_manifest(folder, {**facts, "encoder": {"of": bundle.files["encoder.bin"]["sha256"]}})
    return OrtMLLM(folder)


def dynamic(source: Path, destination: Path) -> None:
    """Weights and activations in 8 bits, ranges taken anew from every picture; the same parts stay float32."""
    model = onnx.load(str(source))
    for node in model.graph.node:
        node.name = node.output[0]
    names = [node.name for node in model.graph.node]
    last = max(i for i, name in enumerate(names) if name.startswith(KEPT))
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "encoder.onnx"
        quantize_dynamic(model, file, weight_type=QuantType.QUInt8, nodes_to_exclude=names[: last + 1])
        destination.unlink()
        destination.with_suffix(".bin").unlink()
        onnx.save(onnx.load(str(file)), str(destination), save_as_external_data=True, location="encoder.bin")


def speed(torch_encoder: Encoder, models: dict[str, OrtMLLM], pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Seconds of a pass, float64 [rounds] each."""
    tensor = torch.from_numpy(pixels)
    runs: dict[str, Callable[[], object]] = {"torch eager": lambda: torch_encoder(tensor)}
    runs |= {name: lambda m=m: m.sessions["encoder"].run(None, {"pixels": pixels}) for name, m in models.items()}
    taken: dict[str, list[float]] = {name: [] for name in runs}
    with torch.inference_mode():
        for _ in range(ROUNDS + 3):
            for name, run in runs.items():
                began = time.perf_counter()
                run()
                taken[name].append(time.perf_counter() - began)
    return {name: np.array(v[3:]) for name, v in taken.items()}


def answers(models: dict[str, OrtMLLM], cases: list[Case]) -> dict[str, np.ndarray]:
    """Template questions through IMC, right or wrong: float64 [pictures * views, most questions], NaN beyond."""
    plan = make_plan(cases, Options())
    found = {}
    for name, model in models.items():
        imc = IMC(model, load_prototypes(model.prototypes_file(), model.identity))
        rows = []
        for i, case in enumerate(tqdm(plan.cases, desc=f"answers, {name}")):
            pairs = [(q.text, q.answer) for q in plan.questions if q.picture == i and q.dataset == "templates"]
            image = load_image(case.path)
            for view in (image, *(apply_to_image(image, kind, 4, plan.seed(i)) for kind in NOISES)):
                rows.append([float(hit) for hit in model.agrees(pairs, imc.see(view).tokens)])
        most = max(map(len, rows))
        found[name] = np.array([row + [np.nan] * (most - len(row)) for row in rows])
    return found


def paired(before: np.ndarray, after: np.ndarray, per_picture: int) -> dict:
    """Shares, and the difference with its interval over pictures; rows are pictures, `per_picture` rows each."""
    owners = np.broadcast_to(np.arange(len(before))[:, None] // per_picture, before.shape)
    asked = np.isfinite(before)
    change = after[asked].astype(float) - before[asked]
    return {
        "right": round(float(after[asked].mean()), 4),
        "change": round(float(change.mean()), 4),
        "change_95ci": interval(change, owners[asked], np.random.default_rng(0)),
        "alike": round(float((change == 0).mean()), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    bundle = Bundle(args.bundle)
    source = bundle.file("encoder.onnx")
    fitted, held = split(load_edition())
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        models = {"float32": OrtMLLM(bundle)}
        models[SHIPPED] = OrtMLLM(quantize_encoder(args.bundle, folder / "shipped"))
        for i, (name, how) in enumerate(OTHERS.items()):
            models[name] = variant(
                bundle, folder / str(i), lambda to, how=how: quantize_graph(source, to, samples(fitted), *how)
            )
        models["int8 after block 2, dynamic"] = variant(bundle, folder / "dynamic", lambda to: dynamic(source, to))
        pixels, torch_encoder = next(samples(held)), eager()
        with torch.inference_mode():
            ours, theirs = (
                models["float32"].sessions["encoder"].run(None, {"pixels": pixels})[0],
                torch_encoder(torch.from_numpy(pixels))[0].numpy(),
            )
        assert np.abs(ours - theirs).max() < 1e-3 * np.abs(theirs).max(), "ONNX and PyTorch disagree"
        seconds = speed(torch_encoder, models, pixels)
        right = {name: named(model, tqdm(held, desc=name), SEVERITIES) for name, model in models.items()}
        said = answers({name: models[name] for name in ("float32", SHIPPED)}, held)
        tokens = {
            name: np.concatenate([m.sessions["encoder"].run(["tokens"], {"pixels": x})[0] for x in samples(held)])
            for name, m in models.items()
        }
        size = {name: m.bundle.files["encoder.bin"]["size"] / 2**20 for name, m in models.items()}

    def quantiles(values: np.ndarray) -> list[float]:
        return [round(float(v), 2) for v in np.quantile(values, QUANTILES)]

    truth = tokens["float32"]
    rows = {"torch eager": {"ms": quantiles(1000 * seconds["torch eager"])}}
    for name in models:
        rows[name] = {
            "mib": round(size[name], 1),
            "ms": quantiles(1000 * seconds[name]),
            "times_float32": quantiles(seconds["float32"] / seconds[name]),
            "times_torch": quantiles(seconds["torch eager"] / seconds[name]),
            "named": paired(right["float32"].astype(float), right[name], 1),
            "token_error": round(float(np.sqrt(((tokens[name] - truth) ** 2).mean() / (truth**2).mean())), 4),
        }
    report = {
        "command": "python recipes/measure_encoder.py --bundle BUNDLE -o recipes/results/encoder.json",
        "pictures": {"ranges": CALIBRATION, "measured": len(held), "severities": SEVERITIES},
        "shipped": SHIPPED,
        "rounds": ROUNDS,
        "quantiles": QUANTILES,
        "encoders": rows,
        "answers": {"noises": ["clean", *NOISES], "float32": round(float(np.nanmean(said["float32"])), 4)}
        | {SHIPPED: paired(said["float32"], said[SHIPPED], 1 + len(NOISES))},
        "machine": {"processor": processor_name(), "threads": 1, "vnni": "vnni" in Path("/proc/cpuinfo").read_text()},
        "versions": {m.__name__: m.__version__ for m in (onnxruntime, onnx, torch)},
    }
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
