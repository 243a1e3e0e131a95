"""RLE Lossless (DICOM PS3.5, annex G). It is decoded here so that nothing grows beyond the picture's own size."""

from __future__ import annotations

import struct

import numpy as np


def decode_rle(code: bytes, rows: int, columns: int, samples: int, bits: int) -> np.ndarray:
    """The unsigned cells of a frame, [H, W] or [H, W, 3], of `bits` 8, 16, 32 or 64.

    Raises:
        ValueError: not what the four numbers promise.
    """
    pixels, width = rows * columns, bits // 8
    count, *offsets = struct.unpack_from("<16L", code.ljust(64, b"\0"))
    if bits % 8 or count != samples * width or count > 15:
        raise ValueError("RLE segments do not match the samples of a pixel")
    ends = [*offsets[1:count], len(code)]
    planes = np.empty((samples, pixels, width), np.uint8)
    for i in range(count):  # a segment a byte, the most significant first
        planes[i // width, :, i % width] = _segment(code[offsets[i] : ends[i]], pixels)
    cells = planes.view(f">u{width}").reshape(samples, rows, columns).astype(f"=u{width}")
    return cells[0] if samples == 1 else np.moveaxis(cells, 0, -1)


def _segment(code: bytes, length: int) -> np.ndarray:
    """`length` bytes out of runs: n and then n + 1 bytes, or n above 128 and a byte that stands 257 - n times."""
    found, at = bytearray(), 0
    while len(found) < length:
        if at >= len(code):
            raise ValueError("an RLE segment ends early")
        run = code[at]
        if run < 128:
            found += code[at + 1 : at + 2 + run]
            at += 2 + run
        else:
            if run > 128:
                found += code[at + 1 : at + 2] * (257 - run)
            at += 2 if run > 128 else 1
    return np.frombuffer(found, np.uint8, length)
