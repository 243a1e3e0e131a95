"""Make every result again that is not current: what changed is found by fingerprints (`inputs.py`, `steps.py`).

    python recipes/all.py --data DATA --lm LM_WHEEL --list
    python recipes/all.py --data DATA --lm LM_WHEEL --jobs 2

A step that is finished is recorded at once, so a run that was cut off goes on; what a step itself can take up again
(the benchmark, damaged questions) waits in `runs/all`. A result takes its place only when its step has ended well.
"""

from __future__ import annotations

import argparse
import datetime
import fnmatch
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from committed import ROOT
from inputs import inputs_of, outputs_of, read_record, why_stale, write_record
from steps import FILES, Step, steps

PYTHON = shlex.quote(sys.executable)


@dataclass
class Running:
    """A step that has been started."""

    step: Step
    inputs: dict[str, str]
    work: Path
    began: float
    process: subprocess.Popen


class Maker:
    """Runs the steps that are not current, each after those whose results it reads."""

    def __init__(self, all_steps: Sequence[Step], root: Path, data: Path, lm: Path, jobs: int = 1) -> None:
        """
        Args:
            all_steps: what there is.
            root: of the repository.
            data: folder of the data sets.
            lm: wheel of the language model.
            jobs: cores to keep busy.
        """
        self.steps, self.root, self.data, self.lm, self.jobs = all_steps, root, data, lm, jobs
        self.record = read_record(root)

    def stale(self, step: Step) -> list[str]:
        """Why a step has to run; empty where it does not."""
        return why_stale(step, self.record.get(step.name), inputs_of(step, self.root, self.data), self.root)

    def listing(self) -> str:
        """Every step: current, or why not."""
        lines, waiting = [], []
        for step in self.steps:
            reasons = self.stale(step) or [f"after {first.name}" for first in waiting if feeds(first, step)]
            waiting += [step] if reasons else []
            entry = self.record.get(step.name)
            last = f"{entry['seconds']:,.0f} s on {entry['date']}" if entry else "–"
            lines.append(f"{step.name}: {'; '.join(reasons) or 'current'} ({last})")
        return "\n".join(lines)

    def run(self, only: Sequence[str] = ()) -> None:
        """Run all that is not current, or the named steps whether they are or not.

        Raises:
            SystemExit: a step failed, or there is none of that name.
        """
        if unknown := set(only) - {s.name for s in self.steps}:
            raise SystemExit(f"all: there is no step {sorted(unknown)[0]!r}; --list names them")
        left = [s for s in self.steps if not only or s.name in only]
        running: list[Running] = []
        failed = ""
        try:
            while not failed:
                self.start_what_may(left, running, forced=bool(only))
                if not running:
                    return
                failed = self.wait(running)
            while running:  # a step that others did not need, and that is not to be lost
                failed = self.wait(running) or failed
        finally:
            for one in running:
                os.killpg(one.process.pid, signal.SIGTERM)
                one.process.wait()
        raise SystemExit(f"all: {failed}")

    def start_what_may(self, left: list[Step], running: list[Running], forced: bool) -> None:
        """Start those of the steps that are left whose inputs are there and that have room; drop the current ones."""
        for step in list(left):
            if any(feeds(other, step) for other in (*left, *(r.step for r in running))):
                continue
            if not forced and not self.stale(step):
                print(f"{step.name}: current", flush=True)
                left.remove(step)
            elif self.fits(step, running):
                running.append(self.start(step))
                left.remove(step)

    def wait(self, running: list[Running]) -> str:
        """Until one of the steps has ended, which is then recorded; in words if it failed."""
        while True:
            for one in running:
                if one.process.poll() is not None:
                    running.remove(one)
                    return self.finish(one)
            time.sleep(0.05)

    def fits(self, step: Step, running: Sequence[Running]) -> bool:
        """Whether a step may be started beside those that run."""
        if not running:
            return True
        if step.alone or any(r.step.alone for r in running):
            return False
        return step.cores + sum(r.step.cores for r in running) <= self.jobs

    def start(self, step: Step) -> Running:
        """Start a step; it writes into a folder of its own, named after its inputs too."""
        inputs = inputs_of(step, self.root, self.data)
        digest = sha256("".join(f"{k}{v}" for k, v in sorted(inputs.items())).encode()).hexdigest()
        work = self.root / "runs" / "all" / f"{re.sub(r'[^a-z0-9]+', '-', step.name.lower())}-{digest[:12]}"
        work.mkdir(parents=True, exist_ok=True)
        print(f"{step.name}: {'; '.join(self.stale(step)) or 'asked for'}; runs", flush=True)
        began = time.monotonic()
        command = self.command(step, work)
        with work.with_suffix(".log").open("w") as log:
            # A session of its own, so that what it starts can be ended with it.
            process = subprocess.Popen(
                ["bash", "-c", command],
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return Running(step, inputs, work, began, process)

    def command(self, step: Step, work: Path) -> str:
        """A step's command as it is run: the table's, with its placeholders filled in and results in `work`."""
        given = {"DATA": str(self.data.resolve()), "LM_WHEEL": str(self.lm.resolve())}
        if {"weights", "encoder"} & set(step.reads):
            given["BUNDLE"] = self.bundle()
        text = step.command
        for word, value in given.items():
            text = re.sub(rf"(?<= ){word}\b", lambda _, value=value: shlex.quote(value), text)
        text = re.sub(r"^python ", f"{PYTHON} ", text)
        text = re.sub(r"^imc-lite ", f"{PYTHON} -m imc_lite ", text)
        text = re.sub(r"\bruns/", lambda _: f"{shlex.quote(str(work))}/", text)
        for name in step.writes:
            text = text.replace(f"-o {name}", f"-o {shlex.quote(str(work / Path(name).name))}")
        return text

    def bundle(self) -> str:
        """The folder of the default model's bundle, built if the weights or prototypes are new."""
        command = [sys.executable, "-m", "imc_lite", "pull", "--from", str(self.lm.resolve())]
        done = subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"all: step bundle failed: {_last_line(done.stderr)}")
        return done.stdout.strip()

    def finish(self, one: Running) -> str:
        """Put a step's result in place and record it; or say in one line that it failed."""
        step, log = one.step, one.work.with_suffix(".log")
        if one.process.returncode:
            said = _last_line(log.read_text(errors="replace"))
            return f"step {step.name} failed ({said}); its output is in {log.relative_to(self.root)}"
        for name in step.writes:
            made = one.work / Path(name).name
            if made.exists():
                made.replace(self.root / name)
        outputs = outputs_of(step, self.root)
        if missing := set(step.writes) - outputs.keys():
            return f"step {step.name} ended without writing {sorted(missing)[0]}"
        shutil.rmtree(one.work)
        log.unlink()
        seconds = round(time.monotonic() - one.began, 1)
        self.record = read_record(self.root) | {
            step.name: {
                "inputs": one.inputs,
                "outputs": outputs,
                "seconds": seconds,
                "machine": f"{_processor()}, {os.cpu_count()} cores",
                "date": datetime.date.today().isoformat(),
            }
        }
        write_record(self.root, self.record)
        print(f"{step.name}: done in {seconds:,.0f} s", flush=True)
        return ""


def feeds(first: Step, second: Step) -> bool:
    """Whether a step writes what another one reads."""
    patterns = [pattern for name in second.reads for pattern in FILES[name]]
    return first != second and any(fnmatch.fnmatch(path, pattern) for path in first.writes for pattern in patterns)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    return lines[-1][:200] if lines else "it said nothing"


def _processor() -> str:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else "unknown processor"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with all sets")
    parser.add_argument("--lm", type=Path, required=True, help="wheel of the language model")
    parser.add_argument("--jobs", type=int, default=1, help="cores; what measures time runs alone in any case")
    parser.add_argument("--only", action="append", default=[], metavar="STEP", help="also if current; may be repeated")
    parser.add_argument("--list", action="store_true", help="say what is not current, and why, and stop")
    args = parser.parse_args()
    maker = Maker(steps(), ROOT, args.data, args.lm, args.jobs)
    if args.list:
        print(maker.listing())
    else:
        maker.run(args.only)


if __name__ == "__main__":
    main()
