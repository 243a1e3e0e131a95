"""Speed of the decoder beside other runtimes on the same base weights, and what a command costs from start to exit.

    pip install llama-cpp-python openvino-genai
    python recipes/benchmark_runtime.py --bundle BUNDLE --lm WHEEL --weights imc_lite/assets/default.safetensors \\
        --image tests/images/synpic28602.jpg -o recipes/results/runtime.json

One thread and two, all runtimes in turns within one process, with other tokens every round: machines drift, so a ratio
is taken round by round. Agreement is with the same weights in float32, over questions of the packaged benchmark. What
other kinds of processor gave stays in the file. A line for this commit goes into recipes/results/history.jsonl, and a
figure that is a tenth worse than at the last other commit on the same kind of processor is named, with exit code 1.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import history
import numpy as np
import torch
from committed import RESULTS
from language_model import load_language_model
from model import LORA_TARGETS
from runtime_peers import LlamaCpp, OpenVino, Ours, Peer, copied, divergence, requantized
from safetensors.torch import load_file

from imc_lite.bench.data import load_edition
from imc_lite.models.greedy import log_softmax

PREFILL, DECODE = 200, 32
WORDS = 1000, 40_000  # ids of ordinary tokens
TEXTS, LONGEST = 120, 48  # questions that agreement is measured over, and their tokens
PEAK = (
    "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
)
COMMANDS = {
    "answer": ("answer", "IMAGE", "What modality is this?", "--model", "BUNDLE"),
    "inspect": ("inspect", "IMAGE", "--model", "BUNDLE"),
    "--version": ("--version",),
}


def command_cost(command: tuple[str, ...], places: dict[str, str], rounds: int) -> dict[str, Any]:
    """Seconds from start to exit and peak memory of a command, on one thread."""
    line, seconds = [sys.executable, "-m", "imc_lite", *(places.get(word, word) for word in command)], []
    # From a small process: what this one holds would count as the command's until it is started.
    peak = subprocess.run([sys.executable, "-c", PEAK, *line], check=True, capture_output=True, text=True).stdout
    for _ in range(rounds):
        began = time.perf_counter()
        subprocess.run(line, check=True, capture_output=True)
        seconds.append(time.perf_counter() - began)
    return {"seconds": spread(seconds), "peak_mib": round(int(peak) / 1024)}


def spread(values: list[float]) -> list[float]:
    """The 5 %, 50 % and 95 % quantiles."""
    return [round(float(v), 3) for v in np.quantile(values, (0.05, 0.5, 0.95))]


def float32(wheel: Path, weights: Path, folder: Path, texts: list[list[int]]) -> dict[bool, list[np.ndarray]]:
    """Log-probabilities float32 [T, vocabulary] after each token of the texts: of the base model as it is, and as it
    has learnt questions."""
    trained, found = load_file(weights), {}
    model, _ = load_language_model(wheel, folder, torch.float32)
    for taught in (False, True):
        if taught:
            for i, layer in enumerate(model.model.layers):
                for short, path in LORA_TARGETS.items():
                    a, b = (trained[f"text.layers.{i}.{short}.{m}"].float() for m in "ab")
                    layer.get_submodule(path).weight.data += b @ a
        with torch.no_grad():
            found[taught] = [log_softmax(model(input_ids=torch.tensor([ids])).logits[0].numpy()) for ids in texts]
    return found


def agreement(peer: Peer, texts: list[list[int]], truth: list[np.ndarray]) -> dict[str, float]:
    """Of the likeliest token after each text, and KL over all of their tokens where the runtime tells probabilities."""
    said = [peer.after(ids) for ids in texts]
    same = [token == int(rows[-1].argmax()) for (token, _), rows in zip(said, truth, strict=True)]
    found = {"same_next_token": round(float(np.mean(same)), 4)}
    rows = [row for _, row in said if row is not None]
    return found | ({"kl": round(divergence(truth, rows), 5)} if rows else {})


def questions(ours: Peer) -> list[list[int]]:
    """Token ids of questions of the packaged benchmark."""
    assert isinstance(ours, Ours)
    asked = dict.fromkeys(q["question"] for case in load_edition() for q in case.questions)
    return [ours.model.encode(text)[:LONGEST] for text in asked][:TEXTS]


def paces(peers: list[Peer], rounds: int, seed: int) -> np.ndarray:
    """Tokens a second, float64 [rounds, peers, 2], reading and writing."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(rounds + 1):
        ids = [int(i) for i in rng.integers(*WORDS, PREFILL)]
        order = rng.permutation(len(peers))
        by_place = {int(place): peers[place].pace(ids, DECODE) for place in order}
        found.append([by_place[place] for place in range(len(peers))])
    return np.array(found[1:])


def compared(peers: list[Peer], rounds: int, seed: int, memory: float) -> dict[str, dict[str, Any]]:
    """Every peer by its name: tokens a second, and how many times its pace ours, the first one's, is."""
    found = paces(peers, rounds, seed)
    table: dict[str, dict[str, Any]] = {}
    for place, peer in enumerate(peers):
        row: dict[str, Any] = {"mib": round(peer.mib, 1)}
        for i, what in enumerate(("prefill", "decode")):
            row[f"{what}_tokens_s"] = spread(list(found[:, place, i]))
            row[f"{what}_ours_times"] = spread(list(found[:, 0, i] / found[:, place, i]))
        # A token cannot be written before all weights were read.
        row["decode_share_of_memory"] = round(float(np.median(found[:, place, 1])) * peer.mib / memory, 3)
        table[peer.name] = row
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("bundle", "lm", "weights", "image"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    places = {"IMAGE": str(args.image), "BUNDLE": str(args.bundle)}
    commands = {name: command_cost(command, places, args.rounds) for name, command in COMMANDS.items()}
    torch.set_num_threads(1)
    memory = copied()
    with tempfile.TemporaryDirectory() as scratch, zipfile.ZipFile(args.lm) as archive:
        folder = Path(scratch)
        gguf = Path(archive.extract(next(n for n in archive.namelist() if n.endswith(".gguf")), folder))
        q8 = requantized(gguf, folder / "q8_0.gguf")

        def opened(threads: int) -> list[Peer]:
            llama = [LlamaCpp(gguf, "Q4_1", threads), LlamaCpp(q8, "Q8_0", threads)]
            return [Ours(args.bundle, threads), *llama, OpenVino(gguf, threads)]

        peers = opened(1)
        texts = questions(peers[0])
        truth = float32(args.lm, args.weights, folder, texts)
        agreed = {peer.name: agreement(peer, texts, truth[peer.taught]) for peer in peers}
        threads = {"1": compared(peers, args.rounds, args.seed, memory)}
        threads["2"] = compared(opened(2), args.rounds, args.seed, memory)
    found = {
        "commit": history.commit(),
        "prefill_tokens": PREFILL,
        "decode_tokens": DECODE,
        "rounds": args.rounds,
        "commands": commands,
        "threads": threads,
        "memory_copy_mib_s": round(memory),
        "agreement": {"texts": TEXTS, **agreed},
    }
    command = "python recipes/benchmark_runtime.py --bundle BUNDLE --lm WHEEL --weights WEIGHTS --image IMAGE"
    committed = RESULTS / "runtime.json"
    before = json.loads(committed.read_text())["processors"] if committed.exists() else {}
    report = {"command": command, "processors": before | {history.processor(): found}}
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    seconds = {f"{name}, seconds": cost["seconds"][1] for name, cost in commands.items()}
    times = {
        f"{what}, threads {count}, times {peer}": row[f"{what}_ours_times"][1]
        for count, table in threads.items()
        for peer, row in [*table.items()][1:]
        for what in ("prefill", "decode")
    }
    worse = history.append(RESULTS / "history.jsonl", "runtime", times, seconds)
    print(json.dumps(found, indent=1))
    sys.exit("\n".join(worse) or 0)


if __name__ == "__main__":
    main()
