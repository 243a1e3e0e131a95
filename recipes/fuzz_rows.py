"""Damage rows, manifests and finished outputs, and see that each is read, or refused in words.

    python recipes/fuzz_rows.py -o recipes/results/fuzz_rows.json

Three targets, no model (a function that gives an error row answers instead, for it is not what is looked at):
- `rows`: a line of a batch through `read_case`, and its row through `json_line`, which must be one line of UTF-8 JSON;
- `manifests`: a file through `read_manifest`; one that is accepted must have plain names only;
- `outputs`: a finished output through `run_batch` with the same cases. Where it is refused it must be as it was; where
  it is accepted, it must begin with the whole rows that were there and end with one row a case.
Every input has a seed of its own; what fails can be made again from it. A hang is 5 seconds, too much memory 1 GiB.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import multiprocessing
import random
import resource
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from tqdm import tqdm

from imc_lite import ImcError
from imc_lite.batch.rows import Case, Plan, read_case, run_of
from imc_lite.batch.run import run_batch
from imc_lite.bundle.manifest import read_manifest
from imc_lite.files import json_line

HANG, MEMORY, CHUNK = 5, 1024, 2000  # seconds, MiB, inputs a process
SHARES = {"rows": 0.6, "manifests": 0.2, "outputs": 0.2}
OF = {"model": "default 0 0", "prototypes": "none", "options": "pdc sms"}
WORDS = (
    b"\0", b"\n", b"\r\n", b"\xef\xbb\xbf", b"\xff\xfe", "\u2028".encode(), b"\\ud800", b"\\udfff\\ud800", b"\\u0000",
    b'"', b"\\", b"{", b"}", b"[", b"]", b":", b",", b"null", b"true", b"NaN", b"-Infinity", b"1e999", b"-0",
    b"9" * 400,
    b'"id"', b'"image"', b'"run"', b'"case"', b'"files"', b'"format"', b'"../x"', b'"/etc/passwd"', b'"manifest.json"',
    b"[" * 3000, b'{"a":' * 3000, b"x" * 5000,
)  # fmt: skip
HUGE = (b"[" * 300_000, b'{"":' * 300_000, b"x" * 2_000_000, b'"' + b"\\u2028" * 300_000 + b'"')
VALUES = (
    None, True, False, 0, -1, 7, 1.5, 1 << 62, 10**30, "", "x", "a.jpg", "../x", "\u2028", "\ud800", "x" * 3000, [], {},
    ["x"], {"x": {}}, float("nan"),
)  # fmt: skip


class Hang(Exception):
    """An input took too long."""


def mutate(data: bytes, rng: random.Random) -> bytes:
    """A few damages of a text: bytes flipped, cut, doubled, moved, or words of trouble put in."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at, to = sorted((rng.randint(0, len(data)), rng.randint(0, len(data))))
        kind = rng.randrange(8)
        if kind == 0:
            data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
        elif kind == 1:
            data = data[:at] + data[to:]
        elif kind == 2:
            data = data[:at]
        elif kind == 3:
            data = data[:to] + data[at:to] + data[to:]
        elif kind == 4:
            data = data[to:] + data[at:to] + data[:at]
        elif kind == 5 and rng.random() < 0.01:
            data = data[:at] + rng.choice(HUGE) + data[at:]
        else:
            data = data[:at] + rng.choice(WORDS) + data[at:]
    return data


def spoil(found: object, rng: random.Random) -> object:
    """A few damages of an object: a value anywhere in it replaced, a key added, lost or renamed."""
    found = json.loads(json.dumps(found))
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = found
        while isinstance(at, dict) and at:
            key = rng.choice(list(at))
            if isinstance(at[key], dict) and at[key] and rng.random() < 0.7:
                at = at[key]
                continue
            kind = rng.randrange(4)
            if kind == 0:
                del at[key]
            elif kind == 1:
                at[rng.choice(("../x", "a/b", ".x", "x" * 300, "CONFIG.JSON", "\ud800", "id", "run"))] = at[key]
            else:
                at[key] = copy.deepcopy(rng.choice(VALUES))
            break
    return found


def damaged(found: object, rng: random.Random) -> bytes:
    """An object as JSON, damaged as an object, as a text, or both."""
    if rng.random() < 0.5:
        found = spoil(found, rng)
    data = json.dumps(found, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    return mutate(data, rng) if rng.random() < 0.7 else data


def one_row(rng: random.Random, folder: Path) -> bool:
    row = {"id": rng.choice(("r1", 7, "\u2028é")), "image": "a.jpg", "question": "Is it?"}
    row |= rng.choice(({}, {"window": "lung"}, {"frame": 2}, {"truth": {"x": [1, 2]}}))
    case = read_case(damaged(row, rng), 1)
    assert isinstance(case, Case) and (case.error is None or case.error.startswith("line 1 "))
    line = json_line({"id": case.id, "error": case.image, "run": run_of(case, Plan(folder, of=OF))})
    assert json.loads(line.encode("utf-8"))["id"] == case.id and len(line.splitlines()) == 1
    return case.error is None


def one_manifest(rng: random.Random, folder: Path) -> bool:
    facts = {"size": 3, "sha256": "0123456789abcdef" * 4}
    files = {name: facts for name in ("config.json", "encoder.onnx", "encoder.bin")}
    manifest = {"format": 1, "id": "a", "version": "b", "sources": [{"name": "x", "licence": "y"}], "files": files}
    (folder / "manifest.json").write_bytes(damaged(manifest, rng))
    try:
        found = read_manifest(folder)
    except ImcError as error:
        assert "bundle" in str(error) and len(str(error)) < 500
        return False
    assert all((folder / name).parent == folder and name not in ("", ".", "..") for name in found["files"])
    return True


def one_output(rng: random.Random, folder: Path) -> bool:
    cases, out, plan = folder / "cases.jsonl", folder / "out.jsonl", Plan(folder)
    if not cases.exists():
        rows = [{"image": "a.jpg", "question": "Is it?"}, {"id": "\u2028"}, {"id": 3, "image": "b", "question": "?"}]
        cases.write_text("".join(json.dumps(row) + "\n" for row in rows) + "no\n")
        run_batch(stand_in, cases, folder / "whole.jsonl", plan, lambda: OF)
    whole = (folder / "whole.jsonl").read_bytes()
    if rng.random() < 0.3:
        lines = [json.loads(line) for line in whole.splitlines()]
        at = rng.randrange(len(lines))
        lines[at] = spoil(lines[at], rng)
        given = "".join(json.dumps(line) + "\n" for line in lines).encode()
    else:
        given = mutate(whole, rng)
    out.write_bytes(given)
    try:
        summary = run_batch(stand_in, cases, out, plan, lambda: OF)
    except ImcError as error:
        assert out.read_bytes() == given, "a refused file was changed"
        assert len(str(error)) < 500
        return False
    after = out.read_bytes()
    assert after.startswith(given[: given.rfind(b"\n") + 1]), "a whole row was lost"
    assert after.count(b"\n") == summary.cases == 4 and after.endswith(b"\n")
    return True


def stand_in(cases: Iterator[Case], left: int, plan: Plan) -> Iterator[str]:
    """Answers without a model."""
    for case in cases:
        yield json_line({"id": case.id, "error": "no model", "run": run_of(case, plan)})


TARGETS: dict[str, Callable[[random.Random, Path], bool]] = {
    "rows": one_row,
    "manifests": one_manifest,
    "outputs": one_output,
}


def chunk(target: str, seeds: range, pipe) -> None:
    """Run a range of seeds in a process of its own; what a crash leaves behind is the seed that it began last."""

    def late(*_) -> None:
        raise Hang

    signal.signal(signal.SIGALRM, late)
    counts: Counter[str] = Counter()
    failures = []
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        for seed in seeds:
            pipe.send(seed)
            signal.setitimer(signal.ITIMER_REAL, HANG)
            try:
                counts[
                    "accepted" if TARGETS[target](random.Random(f"{target} {seed}"), Path(folder)) else "refused"
                ] += 1
            except Hang:
                counts["hang"] += 1
                failures.append({"seed": seed, "failure": "hang"})
            except BaseException as error:
                counts["failed"] += 1
                failures.append({"seed": seed, "failure": type(error).__name__, "line": str(error)[:200]})
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    pipe.send((counts, failures, peak))


def fuzz(target: str, count: int) -> dict:
    """Counts of a target, its failures with their seeds, and the largest memory of a process in MiB."""
    counts: Counter[str] = Counter()
    failures: list[dict] = []
    peak, began = 0, time.perf_counter()
    context = multiprocessing.get_context("fork")
    with tqdm(total=count, desc=target) as bar:
        start = 0
        while start < count:
            seeds = range(start, min(count, start + CHUNK))
            here, there = context.Pipe(duplex=False)
            process = context.Process(target=chunk, args=(target, seeds, there))
            process.start()
            there.close()
            last: int | None = None
            with contextlib.suppress(EOFError):
                while isinstance(found := here.recv(), int):
                    last = found
                more, failed, memory = found
                counts += more
                failures += failed
                peak = max(peak, memory)
                last = seeds[-1]
            process.join()
            if process.exitcode:
                counts["crash"] += 1
                failures.append({"seed": last, "failure": f"exit code {process.exitcode}"})
            start = (last if last is not None else seeds[-1]) + 1
            bar.update(start - bar.n)
    counted = {name: counts[name] for name in ("accepted", "refused", "failed", "hang", "crash")}
    return {
        "inputs": count,
        **counted,
        "memory_over_1_gib": int(peak > MEMORY),
        "peak_mib": peak,
        "seconds": round(time.perf_counter() - began),
        "failures": failures[:20],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=300_000)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    report: dict = {"command": "python recipes/fuzz_rows.py -o recipes/results/fuzz_rows.json"}
    report |= {name: fuzz(name, round(args.inputs * share)) for name, share in SHARES.items()}
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
