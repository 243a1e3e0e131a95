"""The elements that describe pixels (DICOM PS3.3 C.7.6.3, Image Pixel module), checked before anything is decoded.

What is missing and does no harm is filled in; whatever else is wrong is an error that names the element.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imc_lite.errors import ImcError

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.uid import UID

SAMPLES = {
    **dict.fromkeys(("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"), 1),
    **dict.fromkeys(("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"), 3),
}
# Bits that a pixel takes where its element, unlike PixelData, leaves no choice.
FLOATS = {"FloatPixelData": 32, "DoubleFloatPixelData": 64}
SIZE = ("Rows", "Columns", "BitsAllocated")


class NoPictureError(ImcError):
    """A sound DICOM file of a class that holds no picture: a report, a presentation state, a directory …"""


@dataclass(frozen=True)
class ImagePixel:
    """How the pixels of a file are stored. Names in brackets are DICOM's.

    `keyword` is the element that holds them, `samples` 1 or 3 of a pixel, `planar` 1 where each sample has a plane of
    its own. A sample takes `allocated` bits (BitsAllocated), of which `stored` (BitsStored) below and with bit
    `high_bit` (HighBit) count, in two's complement where `signed` (PixelRepresentation).
    """

    syntax: UID
    keyword: str
    photometric: str
    rows: int
    columns: int
    frames: int
    samples: int
    planar: int
    allocated: int
    stored: int
    high_bit: int
    signed: bool


def image_pixel(dataset: Dataset, name: str, max_pixels: int) -> ImagePixel:
    """Read and check a file's Image Pixel module.

    Raises:
        NoPictureError: the file is of a class that holds no picture.
        ImcError: its pixels are missing; an element that is missing, no number, out of range, or at odds with another;
            more than `max_pixels` pixels in a frame.
    """
    keyword = _pixel_keyword(dataset, name)
    rows, columns = (whole_number(dataset, key, name) for key in ("Rows", "Columns"))
    frames = whole_number(dataset, "NumberOfFrames", name, 1) or 1  # writers say 0 of a single frame
    if min(rows, columns, frames) < 1:
        raise ImcError(f"{name} has no pixels (Rows, Columns, NumberOfFrames); export it again")
    if rows * columns > max_pixels:
        raise ImcError(f"{name} has over {max_pixels // 1_000_000} million pixels; scale it down first")
    photometric = str(element(dataset, "PhotometricInterpretation", name) or "").strip().upper()
    if not photometric:
        raise ImcError(f"{name} lacks PhotometricInterpretation, so black and white are unknown; export it again")
    samples = whole_number(dataset, "SamplesPerPixel", name, SAMPLES.get(photometric))
    if samples not in (1, 3):
        raise ImcError(f"{name} has pixels of {samples} samples; give a grey or RGB picture")
    if SAMPLES.get(photometric) != samples:
        raise ImcError(
            f"{name} has a PhotometricInterpretation that is unknown or not one of {samples} samples "
            "(SamplesPerPixel); export it as MONOCHROME2 or RGB"
        )
    allocated = whole_number(dataset, "BitsAllocated", name, FLOATS.get(keyword))
    if keyword in FLOATS:
        stored, high_bit, signed = allocated, allocated - 1, False
        if allocated != FLOATS[keyword] or samples != 1 or photometric == "PALETTE COLOR":
            raise ImcError(f"{name} has {keyword} of {samples} samples in {allocated} bits; export it again")
    else:
        stored = whole_number(dataset, "BitsStored", name, whole_number(dataset, "HighBit", name, allocated - 1) + 1)
        high_bit = whole_number(dataset, "HighBit", name, stored - 1)
        signed = whole_number(dataset, "PixelRepresentation", name, 0) == 1
    if allocated not in (1, 8, 16, 32, 64):
        raise ImcError(f"{name} has pixels of {allocated} bits (BitsAllocated); export it with 8 or 16")
    if not 1 <= stored <= allocated or not stored - 1 <= high_bit < allocated:
        raise ImcError(
            f"{name} has {allocated} bits a sample of which {stored} count up to bit {high_bit} "
            "(BitsAllocated, BitsStored, HighBit), which cannot be; export it again"
        )
    return ImagePixel(
        syntax=dataset.file_meta.TransferSyntaxUID,
        keyword=keyword,
        photometric=photometric,
        rows=rows,
        columns=columns,
        frames=frames,
        samples=samples,
        planar=whole_number(dataset, "PlanarConfiguration", name, 0) if samples == 3 else 0,
        allocated=allocated,
        stored=stored,
        high_bit=high_bit,
        signed=signed,
    )


def frame_index(pixel: ImagePixel, frame: int | None, name: str) -> int:
    """`frame`, which is counted from 1 and the first where it is None, counted from 0.

    Raises:
        ImcError: there is no such frame.
    """
    if frame is not None and not 1 <= frame <= pixel.frames:
        raise ImcError(f"{name} has no frame {frame}; give one of 1 to {pixel.frames}")
    return (frame or 1) - 1


def element(dataset: Dataset, keyword: str, name: str) -> object:
    """An element's value, None where it is missing or empty.

    Raises:
        ImcError: it cannot be read.
    """
    try:
        value = dataset.get(keyword)
    except Exception:  # pydicom raises whatever the conversion ran into, with the element's own words
        raise ImcError(f"{name} has a damaged {keyword}; export it again") from None
    return None if isinstance(value, Sequence) and len(value) == 0 else value


def whole_number(dataset: Dataset, keyword: str, name: str, default: int | None = None) -> int:
    """An element's whole number, `default` where it is missing.

    Raises:
        ImcError: it is missing and there is no default, or it is not one whole number.
    """
    value = element(dataset, keyword, name)
    if value is None:
        if default is None:
            raise ImcError(f"{name} lacks {keyword}; export it again")
        return default
    try:
        found = int(value)  # type: ignore[call-overload]  # what is no number raises
        if found != float(str(value)):
            raise ValueError
        return found
    except (TypeError, ValueError, OverflowError):
        raise ImcError(f"{name} has a {keyword} that is not one whole number; export it again") from None


def numbers(dataset: Dataset, keyword: str, name: str) -> list[float]:
    """An element's numbers, none where it is missing.

    Raises:
        ImcError: one of them is not a number.
    """
    value = element(dataset, keyword, name)
    if value is None:
        return []
    several = value if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) else [value]
    try:
        return [float(str(v)) for v in several if v not in (None, "")]
    except (TypeError, ValueError):
        raise ImcError(f"{name} has a {keyword} that is no number; export it again") from None


def _pixel_keyword(dataset: Dataset, name: str) -> str:
    held = [key for key in ("PixelData", *FLOATS) if key in dataset]
    if len(held) > 1:
        raise ImcError(f"{name} has both {held[0]} and {held[1]}; export it again")
    if held:
        return held[0]
    from pydicom.uid import UID, MediaStorageDirectoryStorage

    kind = UID(str(element(dataset, "SOPClassUID", name) or ""))
    if not kind and "DirectoryRecordSequence" in dataset:
        kind = MediaStorageDirectoryStorage
    # A private UID could tell where a file comes from; only names of the standard are spoken.
    what = f" ({kind.name})" if kind and kind.name != str(kind) else ""
    message = f"{name} is a DICOM file without a picture{what}; give an image object"
    # What says that it is an image, or has a size, has lost its pixels: that is damage.
    if what and "Image" not in kind.name and "Rows" not in dataset:
        raise NoPictureError(message)
    # Spectra have rows and columns of their own; what a maker keeps in a class of his own may be anything.
    if "SpectroscopyData" in dataset or (kind and kind.is_private and not any(key in dataset for key in SIZE)):
        raise NoPictureError(message)
    raise ImcError(message)
