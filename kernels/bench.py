"""Time the kernels beside eager and compiled PyTorch: `python -m imc_lite.kernels.bench -o kernels/results/bench.csv`.

Every shape is first checked against float64; a wrong result is printed and nothing is timed or written. Rows are
appended to the CSV with device, versions and shape. `--plot FILE` draws a CSV that exists. `--device cpu` runs the
whole script once on small shapes through Triton's interpreter: a smoke test, its times mean nothing.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# Tokens, width and depth of real vision towers.
TOWERS = {
    "siglip-base": (196, 768, 12),
    "clip-large": (576, 1024, 24),
    "siglip-so400m": (729, 1152, 27),
    "qwen2.5-vl": (1024, 1280, 32),
}
BATCHES = (1, 8, 64)
PROTOTYPES, RANK, LAYERS = 36, 64, 4
TOLERANCE = {"float32": 1e-5, "float16": 5e-3, "bfloat16": 5e-3}
FIELDS = (
    *("device", "torch", "triton", "op", "tower", "batch", "tokens", "width", "dtype", "provider"),
    *("p20_us", "p50_us", "p80_us", "gb_s", "of_copy", "extra_bytes"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("-o", "--out", type=Path, help="CSV that rows are appended to")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the CSV instead of measuring")
    args = parser.parse_args()
    if args.plot:
        if not args.out:
            parser.error("--plot draws a CSV: name it with -o")
        plot(args.out, args.plot)
        return
    if args.device == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"  # read when the kernels are imported, below
    import torch

    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("bench: no CUDA device here; use --device cpu for the smoke run")
    rows = list(run(args.device))
    if args.out:
        write(rows, args.out)


def run(device: str) -> Iterator[dict[str, Any]]:
    """Check and time every shape; a row for each provider, printed as it is made."""
    import torch
    import triton

    smoke = device == "cpu"
    name = platform.processor() or "cpu" if smoke else torch.cuda.get_device_name()
    facts = {"device": name, "torch": torch.__version__, "triton": triton.__version__}
    towers = {"smoke": (17, 40, 2)} if smoke else TOWERS
    for tower, (tokens, width, depth) in towers.items():
        for dtype in (torch.float16,) if smoke else (torch.float16, torch.bfloat16):
            for batch in (1,) if smoke else BATCHES:
                shape = {"tower": tower, "batch": batch, "tokens": tokens, "width": width}
                shape["dtype"] = str(dtype).removeprefix("torch.")
                for row in measure(batch, tokens, width, dtype, device):
                    yield report({**facts, **shape, **row})
                if batch == 1:
                    yield report({**facts, **shape, **forward(tokens, width, depth, dtype, device)})


def measure(batch: int, tokens: int, width: int, dtype: torch.dtype, device: str) -> Iterator[dict[str, Any]]:
    """Rows of one shape: a copy, then `match` and `calibrate` by each provider.

    Raises:
        SystemExit: a provider disagrees with float64.
    """
    import torch
    from imc_lite.kernels import ops, reference
    from imc_lite.kernels.calibrate import calibrate_triton
    from imc_lite.kernels.match import match_triton

    generator = torch.Generator(device).manual_seed(0)

    def randn(*size: int, of: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.randn(*size, generator=generator, device=device).to(of)

    stats = 2 * LAYERS * width
    matching = ops.MatchBank.build(
        randn(stats), randn(stats, RANK) * stats**-0.5, randn(PROTOTYPES, RANK), randn(PROTOTYPES),
        randn(stats).abs(), randn(RANK, stats), device,
    )  # fmt: skip
    shifting = ops.CalibrationBank.build(
        randn(PROTOTYPES, width), randn(PROTOTYPES, width), randn(PROTOTYPES, width, RANK) * width**-0.5,
        randn(PROTOTYPES, RANK, width) * RANK**-0.5, dtype, device,
    )  # fmt: skip
    hidden, x = randn(batch, LAYERS, tokens, width, of=dtype), randn(batch, tokens, width, of=dtype)
    weights = torch.zeros(batch, PROTOTYPES, device=device)
    weights[:, 7] = 1.0
    bank, maps = ops.tensors(matching), ops.tensors(shifting)
    # One prototype has weight, so eager PyTorch is given that one alone: all 36 would flatter us.
    one = (weights[:, 7:8], *(t[7:8] for t in maps))
    compiled = {"match": torch.compile(reference.match), "calibrate": torch.compile(reference.calibrate)}
    providers: dict[str, dict[str, Callable[[], Any]]] = {
        "match": {
            "triton": lambda: match_triton(hidden, *bank),
            "eager": lambda: reference.match(hidden, *bank),
            "compile": lambda: compiled["match"](hidden, *bank),
        },
        "calibrate": {
            "triton": lambda: calibrate_triton(x, weights, *maps),
            "eager": lambda: reference.calibrate(x, *one),
            "compile": lambda: compiled["calibrate"](x, *one),
        },
    }
    truth = {"match": reference.match(hidden.double(), *bank)[0].double(), "calibrate": exact(x, maps)}
    for op, functions in providers.items():
        limit = 1e-4 if op == "match" else TOLERANCE[str(dtype).removeprefix("torch.")]
        for provider, function in functions.items():
            found = function()[0].double()
            error = float(((found - truth[op]).square().mean() / truth[op].square().mean()).sqrt())
            if not error < limit:
                sys.exit(f"bench: {op} by {provider}, {list(x.shape)} {dtype}, is off by {error:.1e}; nothing is timed")
    del truth
    target = torch.empty_like(x)
    copy = clock(lambda: target.copy_(x), device)
    copy_speed = 2 * x.nbytes / copy[1]
    yield {"op": "copy", "provider": "copy", **times(copy), "gb_s": copy_speed / 1e3, "of_copy": 1.0}
    for op, functions in providers.items():
        moved = hidden.nbytes if op == "match" else 2 * x.nbytes + 2 * maps[0][7].nbytes
        for provider, function in functions.items():
            took = clock(function, device)
            row = {"op": op, "provider": provider, **times(took), "gb_s": moved / took[1] / 1e3}
            row["of_copy"] = moved / took[1] / copy_speed
            if device == "cuda":
                row["extra_bytes"] = extra_bytes(function)
            yield row


def exact(x: torch.Tensor, maps: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """`reference.calibrate` for prototype 7 with weight 1, in float64."""
    down, up, offset, shift = (t[7].double() for t in maps)
    return x.double() + (x.double() @ down - offset) @ up + shift


def forward(tokens: int, width: int, depth: int, dtype: torch.dtype, device: str) -> dict[str, Any]:
    """The tower's own forward pass on one image, random weights: what matching and calibrating must vanish beside."""
    import torch
    from transformers import SiglipVisionConfig, SiglipVisionModel

    side = round(tokens**0.5) * 14
    config = SiglipVisionConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=depth, num_attention_heads=width // 64 or 1,
        image_size=side, patch_size=14,
    )  # fmt: skip
    model = SiglipVisionModel(config).to(device, dtype).eval()
    pixels = torch.zeros(1, 3, side, side, device=device, dtype=dtype)
    with torch.no_grad():
        return {"op": "tower", "provider": "transformers", **times(clock(lambda: model(pixels), device))}


def clock(function: Callable[[], Any], device: str) -> tuple[float, float, float]:
    """p20, p50, p80 in microseconds; on CUDA with a cold L2 before each call."""
    if device == "cuda":
        from triton.testing import do_bench

        return tuple(1000 * t for t in do_bench(function, warmup=50, rep=200, quantiles=[0.2, 0.5, 0.8]))
    took = []
    for _ in range(3):
        began = time.perf_counter()
        function()
        took.append(1e6 * (time.perf_counter() - began))
    return min(took), statistics.median(took), max(took)


def times(took: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip(("p20_us", "p50_us", "p80_us"), took, strict=True))


def extra_bytes(function: Callable[[], Any]) -> int:
    """Peak memory of one call beside its outputs."""
    import torch

    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    outputs = function()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before - sum(t.nbytes for t in outputs)


def report(row: dict[str, Any]) -> dict[str, Any]:
    row = {k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}
    print(*(f"{k}={row[k]}" for k in FIELDS[3:] if k in row), flush=True)
    return row


def write(rows: list[dict[str, Any]], path: Path) -> None:
    """Append rows; a new file begins with its header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, restval="")
        if new:
            writer.writeheader()
        writer.writerows(rows)


def plot(source: Path, target: Path) -> None:
    """Median time of `match` and `calibrate` by provider, one panel a tower and type."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with open(source, newline="", encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if r["op"] in ("match", "calibrate")]
    panels = sorted({(r["tower"], r["dtype"]) for r in rows})
    figure, axes = pyplot.subplots(1, len(panels), figsize=(4 * len(panels), 4), squeeze=False, sharey=True)
    for axis, (tower, dtype) in zip(axes[0], panels, strict=True):
        mine = [r for r in rows if (r["tower"], r["dtype"]) == (tower, dtype)]
        for op, provider in sorted({(r["op"], r["provider"]) for r in mine}):
            line = sorted(
                (int(r["batch"]), float(r["p50_us"])) for r in mine if (r["op"], r["provider"]) == (op, provider)
            )
            axis.plot(*zip(*line, strict=True), marker="o", label=f"{op}, {provider}")
        axis.set(title=f"{tower}, {dtype}", xlabel="batch", xscale="log", yscale="log")
    axes[0][0].set_ylabel("microseconds, median")
    axes[0][-1].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(target)


if __name__ == "__main__":
    main()
