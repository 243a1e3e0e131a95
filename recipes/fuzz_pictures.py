"""Damage pictures at random and load each: a picture or one line has to come out, soon, and little memory be taken.

    pip install -e '.[dicom,cpu]'
    python recipes/fuzz_pictures.py -o recipes/results/fuzz_pictures.json --inputs 400000

Input number i depends on the seed and on i alone. A run that is stopped goes on where it was when the same command is
given again. `--show I -o FILE` writes input I to a file in place of a run.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import select
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from importlib import metadata
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image

from imc_lite.errors import ImcError
from imc_lite.files import write_atomically
from imc_lite.images import codec
from imc_lite.images.load import load_image

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = Path(pydicom.__file__).parent / "data" / "test_files"
LARGEST = 50_000  # bytes of a file that is worth damaging: a larger one takes long and has no other code to reach
SIDE = 48  # pixels of the pictures made from tests/images
HANG = 5.0  # seconds
MEMORY = 1 << 30
SAVED_EVERY = 1000
NUMBERS = (0, 1, 2, 3, 7, 8, 12, 15, 16, 17, 31, 32, 64, 127, 128, 255, 256, 4095, 32767, 32768, 65535)
TEXTS = ("", "0", "-1", "1e308", "nan", "inf", "1\\2", "RGB", "MONOCHROME1", "PALETTE COLOR", "YBR_FULL_422", "x" * 70)


def corpus() -> list[tuple[str, bytes]]:
    """Files to start from: pydicom's small ones, the cases of the tests, and small pictures of every other format."""
    paths = [p for p in sorted(SHIPPED.rglob("*")) if p.is_file() and p.stat().st_size <= LARGEST and _loads(p)]
    paths += sorted(p for p in (ROOT / "tests" / "pictures").iterdir() if p.is_file())
    return [(path.name, path.read_bytes()) for path in paths] + made()


def _loads(path: Path) -> bool:
    try:
        return load_image(path).size > 0
    except ImcError:
        return False


def made() -> list[tuple[str, bytes]]:
    """Pictures of tests/images, small, in the formats and modes that Pillow writes."""
    found = []
    for path in sorted((ROOT / "tests" / "images").glob("*.jpg"))[:2]:
        picture = Image.open(path).convert("RGB").resize((SIDE, SIDE - 5))
        for mode, kind, options in (
            *((mode, "PNG", {}) for mode in ("RGB", "L", "P", "1", "RGBA", "LA", "I;16")),
            *(("RGB", "JPEG", o) for o in ({}, {"progressive": True}, {"subsampling": 0, "restart_marker_rows": 1})),
            ("L", "JPEG", {}),
            ("CMYK", "JPEG", {}),
            *((mode, "BMP", {}) for mode in ("RGB", "L", "P", "1")),
            *(
                ("RGB", "TIFF", {"compression": c})
                for c in ("raw", "tiff_lzw", "packbits", "jpeg", "tiff_adobe_deflate")
            ),
            *((mode, "TIFF", {}) for mode in ("L", "P", "RGBA", "CMYK", "I;16", "I", "F")),
            *(("1", "TIFF", {"compression": c}) for c in ("group3", "group4")),
            ("RGB", "WEBP", {}),
            ("RGBA", "WEBP", {"lossless": True}),
        ):
            if mode == "I;16":
                image = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 16)
            else:
                image = picture.convert(mode)
            buffer = io.BytesIO()
            image.save(buffer, kind, **options)
            name = f"{path.stem}-{mode}-{'-'.join(map(str, options.values()))}.{kind.lower()}"
            found.append((name, buffer.getvalue()))
    return found


def damaged(files: list[tuple[str, bytes]], seed: int, number: int) -> tuple[str, str, bytes]:
    """Input `number`: the file it was made from, how, and its bytes."""
    rng = np.random.default_rng([seed, number])
    name, data = files[rng.integers(len(files))]
    kinds = [flip, cut, remove, repeat, number_in, splice]
    if data[128:132] == b"DICM":
        kinds += [edit_elements] * 6 + [length_of_element] * 2
    elif data.startswith(b"\x89PNG"):
        kinds += [edit_chunk] * 4
    made_by = []
    for _ in range(rng.integers(1, 4)):
        kind = kinds[rng.integers(len(kinds))]
        made_by.append(kind.__name__)
        if len(data) > 8:
            data = kind(rng, data, files)
    return name, "+".join(made_by), data


def flip(rng: np.random.Generator, data: bytes, files: list) -> bytes:
    """A few bits, as often at the head, where headers are, as anywhere."""
    changed = bytearray(data)
    for at in rng.integers(min(len(data), 1024) if rng.random() < 0.5 else len(data), size=rng.integers(1, 17)):
        changed[at] ^= 1 << rng.integers(8)
    return bytes(changed)


def cut(rng: np.random.Generator, data: bytes, files: list) -> bytes:
    """The end is missing."""
    return data[: rng.integers(1, len(data))]


def remove(rng: np.random.Generator, data: bytes, files: list) -> bytes:
    """A piece is missing."""
    at, length = rng.integers(len(data)), rng.integers(1, 65)
    return data[:at] + data[at + length :]


def repeat(rng: np.random.Generator, data: bytes, files: list) -> bytes:
    """A piece stands many times."""
    at, length = rng.integers(len(data)), rng.integers(1, 257)
    return data[:at] + data[at : at + length] * int(rng.integers(2, 50)) + data[at:]


def number_in(rng: np.random.Generator, data: bytes, files: list) -> bytes:
    """Two or four bytes become a number that programs trip over."""
    width, order = (2, 4)[rng.integers(2)], "<>"[rng.integers(2)]
    value = (*NUMBERS, 1 << 31, (1 << 32) - 1)[rng.integers(len(NUMBERS) + (2 if width == 4 else 0))]
    at = rng.integers(max(1, min(len(data), 2048) - width))
    return data[:at] + struct.pack(f"{order}{'H' if width == 2 else 'I'}", value) + data[at + width :]


def splice(rng: np.random.Generator, data: bytes, files: list) -> bytes:
    """The head of one file, the tail of another."""
    other = files[rng.integers(len(files))][1]
    return data[: rng.integers(1, len(data))] + other[rng.integers(len(other)) :]


def length_of_element(rng: np.random.Generator, data: bytes, files: list) -> bytes:
    """The length of an explicit element says something else."""
    places = [at for vr in (b"US", b"DS", b"CS", b"OW", b"OB", b"SQ", b"IS") for at in _all(data, vr)]
    if not places:
        return data
    at = places[rng.integers(len(places))] + 2
    value = NUMBERS[rng.integers(len(NUMBERS))]
    return data[:at] + struct.pack("<H", value) + data[at + 2 :]


def edit_elements(rng: np.random.Generator, data: bytes, files: list) -> bytes:
    """Elements that say how pixels are stored and shown are missing or say something else."""
    try:
        dataset = pydicom.dcmread(io.BytesIO(data), force=True)
        places = [dataset] + [item for e in dataset if e.VR == "SQ" for item in e.value]
        for _ in range(rng.integers(1, 4)):
            place = places[rng.integers(len(places))]
            tags = [e.tag for e in place if e.tag.group in (0x28, 0x2050, 0x7FE0, 0x5200)]
            if not tags:
                continue
            tag = tags[rng.integers(len(tags))]
            choice = rng.integers(4)
            if choice == 0:
                del place[tag]
            elif isinstance(place[tag].value, bytes):
                value = place[tag].value
                place[tag].value = value[: rng.integers(len(value) + 1)] + bytes(rng.integers(3))
            elif choice == 1 and isinstance(place[tag].value, pydicom.multival.MultiValue):
                place[tag].value = list(place[tag].value)[: rng.integers(len(place[tag].value) + 1)]
            elif place[tag].VR in ("US", "SS"):
                value = NUMBERS[rng.integers(len(NUMBERS))]
                others = list(place[tag].value)[1:] if place[tag].VM > 1 else []
                place[tag].value = [value, *others] if others else value
            elif place[tag].VR != "SQ":
                place[tag].value = TEXTS[rng.integers(len(TEXTS))]
        if rng.random() < 0.1:
            syntaxes = [s for s in pydicom.uid.AllTransferSyntaxes if s.is_little_endian and not s.is_implicit_VR]
            dataset.file_meta.TransferSyntaxUID = syntaxes[rng.integers(len(syntaxes))]
        buffer = io.BytesIO()
        dataset.save_as(buffer, implicit_vr=False, little_endian=True, enforce_file_format=False)
        return buffer.getvalue()
    except Exception:  # pydicom cannot write everything that is wrong
        return data


def edit_chunk(rng: np.random.Generator, data: bytes, files: list) -> bytes:
    """A chunk of a PNG says something else, under a checksum that is right."""
    chunks, at = [], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        if length > len(data):
            return data
        chunks.append([data[at + 4 : at + 8], bytearray(data[at + 8 : at + 8 + length])])
        at += 12 + length
    for kind, body in [chunks[i] for i in rng.integers(len(chunks), size=2)] if chunks else []:
        if kind == b"IDAT" and rng.random() < 0.7:
            try:
                plain = bytearray(zlib.decompress(body))
            except zlib.error:
                continue
            for place in rng.integers(len(plain), size=4) if plain else []:
                plain[place] = rng.integers(256)
            body[:] = zlib.compress(bytes(plain))
        elif body:
            body[rng.integers(len(body))] = (*NUMBERS[:16], 250)[rng.integers(17)] % 256
    parts = [struct.pack(">I", len(b)) + k + bytes(b) + struct.pack(">I", zlib.crc32(k + bytes(b))) for k, b in chunks]
    return data[:8] + b"".join(parts)


def _all(data: bytes, part: bytes) -> list[int]:
    found, at = [], data.find(part)
    while at >= 0 and len(found) < 500:
        found.append(at)
        at = data.find(part, at + 1)
    return found


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
        began, row = time.monotonic(), {}
        try:
            picture = load_image(data)
            sound = picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3 and picture.size > 0
            row["outcome"] = "shown" if sound else "raised"
        except ImcError as error:
            text = str(error)
            row |= {"outcome": "refused" if "\n" not in text and len(text) < 400 else "raised", "line": text}
        except BaseException as error:
            row |= {"outcome": "raised", "line": f"{type(error).__name__}: {error}"[:200]}
        row |= {"number": number, "seconds": round(time.monotonic() - began, 3), "peak": _peak()}
        row["spoken"] = os.fstat(spoken).st_size
        print(json.dumps(row), file=out, flush=True)


def _processes() -> list[int]:
    child = codec._process._child
    return [os.getpid()] + ([child.pid] if child is not None else [])


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
