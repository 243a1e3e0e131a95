"""Damage pictures at random and load each: a picture or one line has to come out, soon, and little memory be taken.

    pip install -e '.[dicom,cpu]'
    python recipes/fuzz_pictures.py -o recipes/results/fuzz_pictures.json --inputs 400000

Input number i depends on the seed and on i alone. A run that is stopped goes on where it was when the same command is
given again. `--show I -o FILE` writes input I to a file in place of a run.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import select
import subprocess
import sys
import time
from collections import Counter
from importlib import metadata
from pathlib import Path

import numpy as np
from damaged_pictures import corpus, damaged

from imc_lite.errors import ImcError
from imc_lite.files import write_atomically
from imc_lite.images import codec
from imc_lite.images.load import load_image

HANG = 5.0  # seconds of the processor, or four times as many of the clock
MEMORY = 1 << 30
SAVED_EVERY = 1000


def work(seed: int) -> None:
    """Read numbers of inputs, load them and write what became of each, a line of JSON a number."""
    os.environ.pop("PYTHONWARNINGS", None)
    files, out = corpus(), os.fdopen(os.dup(1), "w")
    spoken = os.open("/tmp", os.O_TMPFILE | os.O_RDWR) if hasattr(os, "O_TMPFILE") else os.open(os.devnull, os.O_RDWR)
    os.dup2(spoken, 1)
    os.dup2(spoken, 2)
    for line in sys.stdin:
        number = int(line)
        name, made_by, data = damaged(files, seed, number)
        os.truncate(spoken, 0)  # what was said while the input was made
        os.lseek(spoken, 0, os.SEEK_SET)
        _reset_peaks()
        print(
            json.dumps({"number": number, "name": name, "made_by": made_by, "bytes": len(data)}), file=out, flush=True
        )
        began, row = _processor_seconds(), {}
        try:
            picture = load_image(data)
            sound = picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3 and picture.size > 0
            row["outcome"] = "shown" if sound else "raised"
        except ImcError as error:
            text = str(error)
            row |= {"outcome": "refused" if "\n" not in text and len(text) < 400 else "raised", "line": text}
        except BaseException as error:
            row |= {"outcome": "raised", "line": f"{type(error).__name__}: {error}"[:200]}
        row |= {"number": number, "seconds": round(_processor_seconds() - began, 3), "peak": _peak()}
        row["spoken"] = os.fstat(spoken).st_size
        print(json.dumps(row), file=out, flush=True)


def _processes() -> list[int]:
    child = codec._process._child
    return [os.getpid()] + ([child.pid] if child is not None else [])


def _processor_seconds() -> float:
    """Of this process and of the decoder's, so that whatever else runs does not count."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = time.process_time() + ended.ru_utime + ended.ru_stime
    for process in _processes()[1:]:
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        spent += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return spent


def _reset_peaks() -> None:
    for process in _processes():
        try:
            Path(f"/proc/{process}/clear_refs").write_text("5")
        except OSError:
            continue


def _peak() -> int:
    """The most memory, in bytes, that this process or the decoder's held since the peaks were reset."""
    most = 0
    for process in _processes():
        try:
            status = Path(f"/proc/{process}/status").read_text()
        except OSError:
            continue
        most = max([most, *(1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))])
    return most


class Worker:
    """A process that loads, watched from here."""

    def __init__(self, seed: int) -> None:
        command = [sys.executable, __file__, "--seed", str(seed), "--worker"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self.rest = b""

    def load(self, number: int) -> tuple[dict, dict | None]:
        """What input `number` is, and what became of it; None where nothing was heard in time."""
        self.process.stdin.write(f"{number}\n".encode())
        about = self._line(120)
        if about is None:
            raise RuntimeError("the worker does not start, or cannot make an input")
        # A decoder that hangs is ended by imc-lite after four seconds and some.
        return about, self._line(4 * HANG)

    def _line(self, seconds: float) -> dict | None:
        end = time.monotonic() + seconds
        while b"\n" not in self.rest:
            if not select.select([self.process.stdout], [], [], max(0, end - time.monotonic()))[0]:
                return None
            part = os.read(self.process.stdout.fileno(), 1 << 16)
            if not part:
                return None
            self.rest += part
        line, _, self.rest = self.rest.partition(b"\n")
        return json.loads(line)

    def stop(self) -> int | None:
        """End it; its exit status if it had ended by itself."""
        status = self.process.poll()
        self.process.kill()
        self.process.communicate()
        return status


def run(out: Path, seed: int, inputs: int) -> None:
    """Load inputs until `inputs` are done, and write the counts every now and then."""
    state = {"seed": seed, "done": 0, "seconds": 0.0, "counts": {}, "decoder": {}, "by_damage": {}, "found": []}
    if out.exists():
        state = json.loads(out.read_text())
        if state["seed"] != seed:
            raise SystemExit(f"{out} was made with seed {state['seed']}; give another file")
    worker, began, spent = None, time.monotonic(), state["seconds"]
    counts, decoder = Counter(state["counts"]), state["decoder"]
    damage = {key: Counter(value) for key, value in state["by_damage"].items()}
    for number in range(state["done"], inputs):
        if worker is None:
            worker = Worker(seed)
        about, row = worker.load(number)
        if row is None:
            time.sleep(0.2)
            status = worker.stop()
            row = {"outcome": "hang" if status is None else "crash", "line": f"exit status {status}"}
            worker = None
        problems = [row["outcome"]] if row["outcome"] not in ("shown", "refused") else []
        problems += ["hang"] if row.get("seconds", 0) > HANG else []
        problems += ["memory"] if row.get("peak", 0) > MEMORY else []
        problems += ["output"] if row.get("spoken") else []
        for word, what in (("make the decoder fail", "died"), ("to decode", "stopped for its time")):
            if word in row.get("line", ""):
                decoder.setdefault(what, []).append(number)
        counts.update([row["outcome"], *(p for p in problems if p != row["outcome"])])
        for kind in set(about["made_by"].split("+")):
            damage.setdefault(kind, Counter())[row["outcome"]] += 1
        if problems and len(state["found"]) < 200:
            state["found"].append(about | row | {"problems": problems})
            print(json.dumps(state["found"][-1]), flush=True)
        if (number + 1) % SAVED_EVERY == 0 or number + 1 == inputs:
            state |= {
                "command": "python recipes/fuzz_pictures.py -o recipes/results/fuzz_pictures.json "
                f"--inputs {inputs} --seed {seed}",
                "packages": {name: metadata.version(name) for name in ("pydicom", "python-gdcm", "pillow", "numpy")},
                "done": number + 1,
                "seconds": round(spent + time.monotonic() - began, 1),
                "counts": {
                    key: counts[key] for key in ("shown", "refused", "raised", "crash", "hang", "memory", "output")
                },
                "by_damage": {key: dict(sorted(value.items())) for key, value in sorted(damage.items())},
            }
            text = json.dumps(state, indent=1)
            write_atomically(out, lambda file, text=text: file.write(text.encode() + b"\n"))
            print(f"{number + 1} in {state['seconds']:.0f} s: {state['counts']}, decoder {decoder}", flush=True)
    if worker is not None:
        worker.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path)
    parser.add_argument("--inputs", type=int, default=400_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, metavar="I")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.seed)
    elif args.out is None:
        parser.error("give -o")
    elif args.show is not None:
        args.out.write_bytes(damaged(corpus(), args.seed, args.show)[2])
    else:
        run(args.out, args.seed, args.inputs)


if __name__ == "__main__":
    main()
