"""Measure what one case costs, for the plan of an archive of a million pictures in docs/ray.md.

    python recipes/plan_archive.py --images tests/images -o recipes/results/archive.json

Cost is CPU time of the process, which other work on the machine changes little; the writer's pace is of rows that
need no model (their picture is missing), through a Ray cluster on this machine. How much sooner a batch is done on all
cores is seconds of the clock, by turns with one thread, so nothing may run beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# As Ray has it for an actor of one core; numpy's further threads would count while they only wait.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

from PIL import Image

from imc_lite import IMC, load_image
from imc_lite.batch.answering import answer_row, answer_rows, workers_of
from imc_lite.batch.rows import Plan, read_case

PICTURES, ROUNDS = 96, 3  # of a batch on several threads
QUESTIONS = ("What modality is this?", "Waht body part is shown?", "In what plane was this image taken?")


def case(images: list[Path], rounds: int) -> dict:
    """CPU seconds of a case, bytes in and out, memory of a model."""
    imc = IMC.from_pretrained()
    plan = Plan(Path.cwd(), timings=False)
    seconds, out = [], []
    for i in range(rounds + 1):
        for path in images:
            for question in QUESTIONS:
                line = json.dumps({"image": str(path.resolve()), "question": question})
                # One that has not encoded this picture already; what comes without it is known, as in an archive.
                fresh = IMC(imc.model, imc.prototypes, confidence=imc.confidence)
                began = time.process_time()
                row = answer_row(fresh, read_case(line.encode(), 1), plan)
                if i:  # the first round opens the sessions
                    seconds.append(time.process_time() - began)
                    out.append(len(row.encode()) + 1)
    return {
        "cases": len(seconds),
        "cpu_s_mean": round(statistics.mean(seconds), 3),
        "picture_kib_mean": round(statistics.mean(p.stat().st_size for p in images) / 1024, 1),
        "row_bytes_mean": round(statistics.mean(out)),
        "model_mib": round(resident()),
    }


def resident() -> float:
    """MiB of this process."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def side_by_side(images: list[Path], threads: int) -> dict:
    """Seconds that a batch takes with one thread and with several, and what each of these adds to memory.

    Every picture is new, one pixel changed; the three questions are repaired once, as those of an archive are.
    """
    plan = Plan(Path.cwd(), timings=False)
    imcs = {count: IMC.from_pretrained(threads=count) for count in (threads, 1)}
    seconds: dict[int, list[float]] = {count: [] for count in imcs}
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        cases = []
        for i in range(PICTURES):
            pixels = load_image(images[i % len(images)])
            pixels[i, i] ^= 1
            Image.fromarray(pixels).save(f"{folder}/{i}.png")
            line = json.dumps({"image": f"{folder}/{i}.png", "question": QUESTIONS[i % len(QUESTIONS)]})
            cases.append(read_case(line.encode(), i + 1))
        for timed in (False, *[True] * ROUNDS):
            for count, imc in imcs.items():
                # One that has not encoded these pictures already.
                workers = workers_of(IMC(imc.model, imc.prototypes, confidence=imc.confidence))
                if not timed:
                    list(answer_rows(workers[:1], cases, plan))
                before, began = resident(), time.perf_counter()
                rows[count] = list(answer_rows(workers, cases, plan))
                if timed:
                    seconds[count].append(time.perf_counter() - began)
                elif count == threads:
                    added = (resident() - before) / max(1, threads - 1)
    medians = {count: statistics.median(found) for count, found in seconds.items()}
    return {
        "threads": threads,
        "cases": len(cases),
        "rounds": ROUNDS,
        "seconds_median": {str(count): round(medians[count], 2) for count in sorted(medians)},
        "times_as_fast": round(medians[1] / medians[threads], 2),
        "same_rows": rows[1] == rows[threads],
        "mib_each_further_thread": round(added),
    }


def writer(rows: int) -> dict:
    """Rows a second that the process which was started can write, the start of Ray taken off."""
    taken = {}
    for count in (rows // 10, rows):
        with tempfile.TemporaryDirectory() as folder:
            lines = [json.dumps({"image": f"{i}.png", "question": "Is it?"}) for i in range(count)]
            (Path(folder) / "cases.jsonl").write_text("\n".join(lines))
            began = time.perf_counter()
            command = [sys.executable, "-m", "imc_lite", "answer", "--batch", "cases.jsonl", "-o", "out.jsonl", "--ray"]
            subprocess.run(command, cwd=folder, check=True, stderr=subprocess.DEVNULL)
            taken[count] = time.perf_counter() - began
            assert len((Path(folder) / "out.jsonl").read_text().splitlines()) == count
    few, many = taken.values()
    return {"rows": rows, "start_s": round(few, 1), "rows_per_second": round((rows - rows // 10) / (many - few))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    images = sorted(args.images.glob("*.jpg"))
    report = {
        "command": "python recipes/plan_archive.py --images tests/images -o recipes/results/archive.json",
        "machine": {
            "processor": re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())[1],
            "cores": os.cpu_count(),
            "load_average_before": round(os.getloadavg()[0], 2),
        },
        "case": case(images, args.rounds),
        "side_by_side": side_by_side(images, os.cpu_count() or 1),
        "writer": writer(args.rows),
    }
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
