"""Measure what one case costs, for the plan of an archive of a million pictures in docs/ray.md.

    python recipes/plan_archive.py --images tests/images -o recipes/results/archive.json

Cost is CPU time of the process, which other work on the machine changes little; the writer's pace is of rows that
need no model (their picture is missing), through a Ray cluster on this machine.
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

from imc_lite import IMC
from imc_lite.batch.answering import answer_row
from imc_lite.batch.rows import Plan, read_case

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
    memory = int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024
    return {
        "cases": len(seconds),
        "cpu_s_mean": round(statistics.mean(seconds), 3),
        "picture_kib_mean": round(statistics.mean(p.stat().st_size for p in images) / 1024, 1),
        "row_bytes_mean": round(statistics.mean(out)),
        "model_mib": round(memory),
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
    report = {
        "command": "python recipes/plan_archive.py --images tests/images -o recipes/results/archive.json",
        "machine": {
            "processor": re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())[1],
            "cores": os.cpu_count(),
            "load_average_before": round(os.getloadavg()[0], 2),
        },
        "case": case(sorted(args.images.glob("*.jpg")), args.rounds),
        "writer": writer(args.rows),
    }
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
