"""Time the kernels beside eager and compiled PyTorch.

    python -m imc_lite.kernels.bench -o recipes/results/kernels.csv

Every shape is first checked against float64; a wrong result is printed and nothing is timed or written. Rows are
appended to the CSV with device, versions and shape. `--tower NAME` and `--dtype NAME` measure some sizes alone; most of
the time goes into compiling, whose results PyTorch and Triton keep. `--plot FILE` draws a CSV that exists. `--device
cpu` runs the whole script once on small shapes through Triton's interpreter: a smoke test, its times mean nothing.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from imc_lite.kernels.registry import Kernel, Shape

    Tensors = tuple[torch.Tensor, ...]

# Tokens, width and depth of real vision towers.
TOWERS = {
    "siglip-base": (196, 768, 12),
    "clip-large": (576, 1024, 24),
    "siglip-so400m": (729, 1152, 27),
    "qwen2.5-vl": (1024, 1280, 32),
}
SMOKE = {"smoke": (17, 40, 2)}
DTYPES = ("float16", "bfloat16")
BATCHES = (1, 8, 64)
WARM, ROUNDS = 20, 100
FLUSHED_BYTES = 512 << 20
FIELDS = (
    *("device", "torch", "triton", "op", "tower", "batch", "tokens", "width", "dtype", "provider"),
    *("p20_us", "p50_us", "p80_us", "gb_s", "of_copy", "extra_bytes"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("-o", "--out", type=Path, help="CSV that rows are appended to")
    parser.add_argument("--tower", choices=TOWERS, action="append", help="this size; may be given again")
    parser.add_argument("--dtype", choices=DTYPES, action="append", help="this precision")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the CSV instead of measuring")
    args = parser.parse_args()
    if args.plot:
        if not args.out:
            parser.error("--plot draws a CSV: name it with -o")
        from imc_lite.kernels.plot import plot

        plot(args.out, args.plot)
        return
    if args.device == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"  # read when the kernels are imported, below
    import torch

    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("bench: no CUDA device here; use --device cpu for the smoke run")
    smoke = args.device == "cpu"
    towers = SMOKE if smoke else {name: TOWERS[name] for name in args.tower or TOWERS}
    rows = list(run(args.device, towers, args.dtype or (DTYPES[:1] if smoke else DTYPES)))
    if args.out:
        write(rows, args.out)


def run(device: str, towers: dict[str, tuple[int, int, int]], dtypes: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Check and time every shape; a row for each provider, printed as it is made.

    Args:
        towers: tokens, width and depth by name.
        dtypes: of the tokens, by PyTorch's names.

    Raises:
        SystemExit: a provider disagrees with float64.
    """
    import torch
    import triton
    from imc_lite.kernels.registry import Shape

    smoke = device == "cpu"
    name = platform.processor() or "cpu" if smoke else torch.cuda.get_device_name()
    facts = {"device": name, "torch": torch.__version__, "triton": triton.__version__}
    for tower, (tokens, width, depth) in towers.items():
        for dtype in (getattr(torch, name) for name in dtypes):
            for batch in (1,) if smoke else BATCHES:
                shown = {"tower": tower, "batch": batch, "tokens": tokens, "width": width}
                shown["dtype"] = str(dtype).removeprefix("torch.")
                for row in measure(Shape(batch, tokens, width), dtype, device):
                    yield report({**facts, **shown, **row})
                if batch == 1:
                    yield report({**facts, **shown, **forward(tokens, width, depth, dtype, device)})


def measure(shape: Shape, dtype: torch.dtype, device: str) -> Iterator[dict[str, Any]]:
    """Rows of one shape: a copy of the tokens, then every kernel by each provider, once all of them are right."""
    import torch
    from imc_lite.kernels.registry import kernels

    timed = {k.name: (k, k.inputs(shape, dtype, device, 0)) for k in kernels() if k.moved is not None}
    torch.compiler.reset()  # else PyTorch compiles for sizes that vary, and gives up after a few of them
    calls = {(name, provider): call for name, one in timed.items() for provider, call in providers(*one).items()}
    for name, one in timed.items():
        check(*one, {provider: call for (op, provider), call in calls.items() if op == name}, dtype)
    tokens = torch.zeros(shape.batch, shape.tokens, shape.width, device=device, dtype=dtype)
    target = torch.empty_like(tokens)
    took = clock({("copy", "copy"): lambda: target.copy_(tokens), **calls}, device)
    copy = took.pop(("copy", "copy"))
    copy_speed = 2 * tokens.nbytes / copy[1]
    yield {"op": "copy", "provider": "copy", **times(copy), "gb_s": copy_speed / 1e3, "of_copy": 1.0}
    for (name, provider), spent in took.items():
        kernel, inputs = timed[name]
        assert kernel.moved is not None
        speed = kernel.moved(*inputs) / spent[1]
        row = {"op": name, "provider": provider, **times(spent), "gb_s": speed / 1e3, "of_copy": speed / copy_speed}
        if device == "cuda":
            row["extra_bytes"] = extra_bytes(calls[name, provider])
        yield row


def providers(kernel: Kernel, inputs: Tensors) -> dict[str, Callable[[], Tensors]]:
    """Whatever computes the kernel's outputs, by name, ready to be called."""
    import torch

    compiled, fewer = torch.compile(kernel.reference), kernel.for_eager(*inputs)
    return {
        "triton": lambda: kernel.triton(*inputs),
        "eager": lambda: kernel.reference(*fewer),
        "compile": lambda: compiled(*fewer),
    }


def check(kernel: Kernel, inputs: Tensors, calls: dict[str, Callable[[], Tensors]], dtype: torch.dtype) -> None:
    """End the program where a row of a provider's first output is farther from float64 than the kernel's tolerance."""
    from imc_lite.kernels.registry import error

    truth = kernel.exact(*kernel.for_eager(*inputs))[0]
    for provider, call in calls.items():
        off = error(call()[0], truth)
        if not off < kernel.tolerance[dtype]:
            shape = list(inputs[0].shape)
            sys.exit(f"bench: {kernel.name} by {provider}, {shape} {dtype}, is off by {off:.1e}; nothing is timed")


def forward(tokens: int, width: int, depth: int, dtype: torch.dtype, device: str) -> dict[str, Any]:
    """The tower's own forward pass on one image, random weights: what the kernels' time must vanish beside."""
    import torch
    from transformers import SiglipVisionConfig, SiglipVisionModel

    side = round(tokens**0.5) * 14
    config = SiglipVisionConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=depth, num_attention_heads=width // 64 or 1,
        image_size=side, patch_size=14,
    )  # fmt: skip
    model: Any = SiglipVisionModel(config)
    model.to(device, dtype).eval()
    pixels = torch.zeros(1, 3, side, side, device=device, dtype=dtype)
    with torch.no_grad():
        took = clock({"tower": lambda: model(pixels)}, device)["tower"]
    return {"op": "tower", "provider": "transformers", **times(took)}


def clock(calls: dict[Any, Callable[[], Any]], device: str) -> dict[Any, tuple[float, float, float]]:
    """p20, p50, p80 in microseconds of each call, by its key.

    The calls take turns, so that what the device's clock does meets all of them alike. On CUDA each one follows a long
    write, which empties the L2 cache; while that runs, the call is queued, so that the cost of launching it is not
    timed unless it is longer than the write.
    """
    spent: dict[Any, list[float]] = {key: [] for key in calls}
    if device == "cuda":
        for key, pairs in _events(calls).items():
            spent[key] = [1000 * began.elapsed_time(ended) for began, ended in pairs]
    else:
        for key, call in [*calls.items()] * 3:
            began = time.perf_counter()
            call()
            spent[key].append(1e6 * (time.perf_counter() - began))
    return {key: _quantiles(took) for key, took in spent.items()}


def _events(calls: dict[Any, Callable[[], Any]]) -> dict[Any, list[tuple[Any, Any]]]:
    """Events before and after each call of every round, all of them reached."""
    import torch

    flushed = torch.empty(FLUSHED_BYTES, dtype=torch.int8, device="cuda")
    pairs: dict[Any, list[tuple[Any, Any]]] = {key: [] for key in calls}
    for number in range(WARM + ROUNDS):
        for key, call in calls.items():
            began, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            flushed.zero_()
            began.record()
            call()
            ended.record()
            if number >= WARM:
                pairs[key].append((began, ended))
    torch.cuda.synchronize()
    return pairs


def _quantiles(took: list[float]) -> tuple[float, float, float]:
    ordered = sorted(took)
    p20, p50, p80 = (ordered[round(q * (len(ordered) - 1))] for q in (0.2, 0.5, 0.8))
    return p20, p50, p80


def times(took: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip(("p20_us", "p50_us", "p80_us"), took, strict=True))


def extra_bytes(function: Callable[[], Tensors]) -> int:
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


if __name__ == "__main__":
    main()
