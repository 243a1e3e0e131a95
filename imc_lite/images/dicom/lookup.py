"""Lookup tables (DICOM PS3.3 C.11.1.1, C.11.2.1.1, C.7.6.3.1.5 and C.7.9.2): modality, VOI and palette.

pydicom 3.0 refuses some tables that the standard allows and misreads others, so they are read here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from imc_lite.errors import ImcError
from imc_lite.images.dicom.image_pixel import element, numbers

if TYPE_CHECKING:
    from pydicom import Dataset

WORDS = 8  # of a segmented palette's shortest segment that gives an entry, an opcode, a length and an offset among them


@dataclass(frozen=True)
class LookupTable:
    """`entries` (uint16) of `bits` bits; `first` is the value that the first of them stands for."""

    first: int
    entries: np.ndarray
    bits: int

    @property
    def top(self) -> int:
        """The highest number an entry could be."""
        return (1 << self.bits) - 1

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """The entry of each value; values outside the table get its first or last entry."""
        at = np.clip(np.rint(np.nan_to_num(values)) - float(self.first), 0, len(self.entries) - 1)
        return self.entries[at.astype(np.int32)]


def read_table(
    item: Dataset, name: str, *, what: str, colour: str = "", little_endian: bool, signed: bool | None
) -> LookupTable:
    """A table of an item: LUTDescriptor and LUTData, or those of a palette's `colour`.

    Args:
        item: what holds them.
        name: what the file is called in errors.
        what: what the table is called in errors.
        colour: Red, Green or Blue; "" for a grey table.
        little_endian: the file's byte order.
        signed: whether the values that are looked up can be negative, and so the first of them; None where the
            descriptor may be believed. In implicit VR it is read by the sign of stored values, right or not.

    Raises:
        ImcError: the table is missing, incomplete or contradicts its descriptor.
    """
    prefix = f"{colour}PaletteColorLookupTable" if colour else "LUT"
    order = "<" if little_endian else ">"
    count, first, bits = _descriptor(item, f"{prefix}Descriptor", name, what, order)
    if signed is not None:
        first = (first + 0x8000) % 0x10000 - 0x8000 if signed else first % 0x10000
    data, entries = element(item, f"{prefix}Data", name), None
    if data is None and colour:
        segments = element(item, f"Segmented{prefix}Data", name)
        if isinstance(segments, bytes):
            words = np.frombuffer(segments[: len(segments) // 2 * 2], f"{order}u2") if bits > 8 else segments
            # No segment of so many words gives less than an entry; what comes behind is not needed.
            entries = _expanded([int(w) for w in words[: WORDS * count]], bits > 8, count)
            if entries is not None:
                return LookupTable(first, entries, bits)
    else:
        entries = _entries(data, count, bits, order)
        if entries is not None and entries.dtype == np.uint8:
            entries, bits = entries.astype(np.uint16), min(bits, 8)
    if entries is None or int(entries.max()) >> bits:
        raise ImcError(f"{name} has a {what} that does not fit its descriptor ({prefix}Descriptor); export it again")
    return LookupTable(first, entries, bits)


def _descriptor(item: Dataset, keyword: str, name: str, what: str, order: str) -> tuple[int, int, int]:
    """Entries, first value and bits an entry."""
    value = element(item, keyword, name)
    if isinstance(value, bytes) and len(value) == 6:  # pydicom could not tell whether it is signed
        found = [float(v) for v in struct.unpack(f"{order}3H", value)]
    else:
        found = numbers(item, keyword, name)
    if len(found) != 3 or not 1 <= found[2] <= 16:
        raise ImcError(f"{name} has a {what} without a usable descriptor ({keyword}); export it again")
    # 65536 entries are written as 0. Where the first value is signed, so are, wrongly, the other two.
    return int(found[0]) % 0x10000 or 0x10000, int(found[1]), int(found[2])


def _entries(data: object, count: int, bits: int, order: str) -> np.ndarray | None:
    """Entries as uint16, or as uint8 where each takes one byte; None where there are too few.

    They are bytes (OW) or numbers (US). Eight bits may stand one or two in a word of 16.
    """
    if isinstance(data, bytes):
        if len(data) >= 2 * count:
            return np.frombuffer(data, f"{order}u2", count).astype(np.uint16)
        words = np.frombuffer(data[: len(data) // 2 * 2], f"{order}u2")
    elif isinstance(data, int):
        words = np.array([data % 0x10000])
    elif data is None:
        return None
    else:
        words = np.array([int(word) % 0x10000 for word in data])  # type: ignore[attr-defined]
        if len(words) >= count:
            return words[:count].astype(np.uint16)
    octets = words.astype("<u2").view(np.uint8)
    return octets[:count] if len(octets) - count in (0, 1) else None


def _expanded(words: list[int], wide: bool, count: int) -> np.ndarray | None:
    """Segments (C.7.9.2) as `count` entries; None where they are damaged or give fewer.

    Args:
        words: opcodes, lengths and values.
        wide: whether a word has 16 bits, and an offset two words in place of four.
        count: to stop at, for a few bytes could ask for billions.
    """
    found: list[int] = []

    def run(at: int, segments: int | None) -> None:
        while at + 1 < len(words) and len(found) < count and segments != 0:
            opcode, length = words[at : at + 2]
            if length == 0 or opcode > 2:
                raise ValueError("no such segment")
            if opcode == 0:  # values as they stand
                found.extend(words[at + 2 : at + 2 + length])
                at += 2 + length
            elif opcode == 1:  # a line from the last value to this one
                line = np.linspace(found[-1], words[at + 2], length + 1)[1:]
                found.extend(np.rint(line).astype(int).tolist())
                at += 3
            elif segments is not None:
                raise ValueError("a copied segment may not copy")
            else:  # earlier segments over again, from a byte offset
                end = at + (4 if wide else 6)
                offset = sum(word << (16 if wide else 8) * i for i, word in enumerate(words[at + 2 : end]))
                run(offset // 2 if wide else offset, length)
                at = end
            segments = None if segments is None else segments - 1

    try:
        run(0, None)
    except (ValueError, IndexError):
        return None
    return np.array(found[:count], np.uint16) if len(found) >= count else None
