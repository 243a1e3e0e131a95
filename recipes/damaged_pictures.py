"""Pictures to damage, and the ways in which `fuzz_pictures.py` does it: bits, lengths, elements, chunks, splices."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image

from imc_lite.errors import ImcError
from imc_lite.images.load import load_image

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = Path(pydicom.__file__).parent / "data" / "test_files"
LARGEST = 50_000  # bytes of a file that is worth damaging: a larger one takes long and has no other code to reach
SIDE = 48  # pixels of the pictures made from tests/images
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
