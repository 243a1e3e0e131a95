"""What a JPEG, JPEG-LS or JPEG 2000 stream says of the picture in it.

Decoders believe the stream and not the DICOM header: where the two disagree, a picture can come out wrong, and a few
bytes could make a decoder ask for all memory. So the stream is read before it is decoded.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

J2K_START = b"\xff\x4f\xff\x51"  # SOC, SIZ
JP2_START = b"\0\0\0\x0cjP  "  # a JPEG 2000 file, which holds a stream in a box


@dataclass(frozen=True)
class Codestream:
    """Size in pixels, components, and how they are coded.

    Attributes:
        precision: bits of a component.
        signed: whether components are signed; None where the format cannot say (all but JPEG 2000).
        subsampled: whether components differ in resolution, as chroma may and red, green and blue never do.
        colours: "RGB" or "YBR" where a marker or the component names say it, else "".
    """

    rows: int
    columns: int
    samples: int
    precision: int
    signed: bool | None
    subsampled: bool
    colours: str


def read_codestream(code: bytes) -> Codestream | None:
    """What the stream says; None where it is none of the three formats, or is cut off before it says."""
    try:
        start = _stream_box(code) if code.startswith(JP2_START) else 0
        return _jpeg2000(code, start + 4) if code.startswith(J2K_START, start) else _jpeg(code)
    except (struct.error, IndexError):
        return None


def _stream_box(code: bytes) -> int:
    """Where the content of the box jp2c begins (ISO/IEC 15444-1 I.4)."""
    at = 0
    while code[at + 4 : at + 8] != b"jp2c":
        (length,) = struct.unpack_from(">I", code, at)
        if length < 8:  # 0 and 1 announce the last box and a very long one
            raise IndexError("no stream")
        at += length
    return at + 8


def _jpeg2000(code: bytes, at: int) -> Codestream:
    """ISO/IEC 15444-1 A.5.1; `at` is where the SIZ segment's length stands."""
    right, bottom, left, top = struct.unpack_from(">4I", code, at + 4)
    (samples,) = struct.unpack_from(">H", code, at + 36)
    parts = [code[at + 38 + 3 * i : at + 41 + 3 * i] for i in range(samples)]
    depth = parts[0][0]
    return Codestream(
        rows=max(0, bottom - top),
        columns=max(0, right - left),
        samples=samples,
        precision=(depth & 0x7F) + 1,
        signed=bool(depth & 0x80),
        subsampled=any(part[1:] != b"\x01\x01" for part in parts),
        colours="",
    )


def _jpeg(code: bytes) -> Codestream | None:
    """ISO/IEC 10918-1 B.2.2; JPEG-LS (ISO/IEC 14495-1 C.2.2) has the same frame header under another marker."""
    at, colours = 2, ""
    if code[:2] != b"\xff\xd8":
        return None
    while at + 4 <= len(code):
        if code[at] != 0xFF:
            return None
        marker = code[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        (length,) = struct.unpack_from(">H", code, at + 2)
        segment = code[at + 4 : at + 2 + length]
        adobe = marker == 0xEE and segment.startswith(b"Adobe") and segment[11:12] == b"\x01"
        if adobe or (marker == 0xE0 and segment.startswith(b"JFIF")):
            colours = "YBR"
        elif (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            precision, rows, columns, samples = struct.unpack_from(">BHHB", segment)
            names, factors = segment[6 : 6 + 3 * samples : 3], segment[7 : 6 + 3 * samples : 3]
            if names in (b"RGB", b"rgb"):
                colours = "RGB"
            return Codestream(rows, columns, samples, precision, None, len(set(factors)) > 1, colours)
        at += 2 + length
    return None
