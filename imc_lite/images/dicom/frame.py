"""The stored values of one frame: decoded, checked against the header, unused bits taken away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from imc_lite.errors import ImcError
from imc_lite.images import codec
from imc_lite.images.dicom.codestream import Codestream, read_codestream
from imc_lite.images.dicom.image_pixel import FLOATS, ImagePixel, element
from imc_lite.images.dicom.rle import decode_rle

if TYPE_CHECKING:
    from pydicom import Dataset

RLE = "1.2.840.10008.1.2.5"
JPEG_LOSSLESS = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
# With JPEG-LS, JPEG 2000 and High-Throughput JPEG 2000. A lossy stream overshoots: all of its bits have a meaning.
LOSSLESS = (*JPEG_LOSSLESS, *(f"1.2.840.10008.1.2.4.{n}" for n in (80, 90, 201, 202)))


@dataclass(frozen=True)
class Frame:
    """Stored values of a frame.

    Attributes:
        values: [H, W] or [H, W, 3]; integers, or floats of FloatPixelData and DoubleFloatPixelData.
        cells: as values, with the bits that do not count still in; a padding value may need them.
        bits: that a value can have.
        ybr: whether three samples are luma and chroma, and not red, green and blue.
    """

    values: np.ndarray
    cells: np.ndarray
    bits: int
    ybr: bool


def read_frame(dataset: Dataset, pixel: ImagePixel, index: int, name: str) -> Frame:
    """Decode frame `index` (from 0).

    Raises:
        ImcError: pixel data that are damaged or too short; a stream that no installed decoder reads, or that
            contradicts the header.
    """
    data = element(dataset, pixel.keyword, name)
    if not isinstance(data, bytes):
        raise ImcError(f"{name} has a damaged or empty {pixel.keyword}; export it again")
    try:
        compressed = pixel.syntax.is_compressed
    except ValueError:
        raise ImcError(f"{name} has a TransferSyntaxUID that is none; export it uncompressed") from None
    ybr = pixel.photometric in ("YBR_FULL", "YBR_FULL_422")
    if compressed and pixel.syntax != RLE:
        return _compressed(_frame_code(dataset, data, pixel, index, name), pixel, name)
    if pixel.photometric in ("YBR_ICT", "YBR_RCT"):
        raise ImcError(f"{name} has a PhotometricInterpretation that goes with JPEG 2000 only; export it as RGB")
    if compressed:
        code = _frame_code(dataset, data, pixel, index, name)
        try:
            cells = decode_rle(code, pixel.rows, pixel.columns, pixel.samples, pixel.allocated)
        except ValueError:
            raise _unreadable(pixel, name, "are damaged or that no installed decoder reads") from None
    else:
        cells = _native(dataset, data, pixel, index, name)
    if pixel.keyword in FLOATS:
        return Frame(cells, cells, pixel.stored, False)
    values = _stored_bits(cells, pixel.stored, pixel.high_bit, pixel.signed and pixel.allocated > 1)
    return Frame(values, cells, pixel.stored, ybr)


def _native(dataset: Dataset, data: bytes, pixel: ImagePixel, index: int, name: str) -> np.ndarray:
    """Cells of an uncompressed frame."""
    from pydicom.pixels import get_decoder

    samples = 2 if pixel.photometric == "YBR_FULL_422" else pixel.samples
    needed = (pixel.rows * pixel.columns * samples * pixel.allocated * pixel.frames + 7) // 8
    if len(data) < needed:
        raise ImcError(
            f"{name} has {len(data)} bytes of pixel data and needs {needed} "
            "(Rows, Columns, NumberOfFrames, SamplesPerPixel, BitsAllocated); export it again"
        )
    if pixel.allocated == 1 and dataset.original_encoding[1] is not False:
        # Frames follow each other without padding (PS3.5 8.1.1), and one that begins within a byte pydicom cuts off.
        start, size = index * pixel.rows * pixel.columns, pixel.rows * pixel.columns
        octets = np.frombuffer(data, np.uint8)[start // 8 : (start + size + 7) // 8]
        return np.unpackbits(octets, bitorder="little")[start % 8 :][:size].reshape(pixel.rows, pixel.columns)
    options: dict[str, Any] = {
        "correct_unused_bits": False,  # pydicom takes HighBit for BitsStored - 1
        "rows": pixel.rows,
        "columns": pixel.columns,
        "number_of_frames": pixel.frames,
        "samples_per_pixel": pixel.samples,
        "photometric_interpretation": pixel.photometric,
        "planar_configuration": pixel.planar,
        "bits_allocated": pixel.allocated,
        "bits_stored": pixel.stored,
        "pixel_representation": 0,
        "pixel_keyword": pixel.keyword,
        "pixel_vr": dataset[pixel.keyword].VR,
    }
    try:
        cells, _ = get_decoder(pixel.syntax).as_array(data, index=index, raw=True, **options)
    except Exception:  # pydicom raises whatever it ran into
        raise ImcError(
            f"{name} has pixel data that do not fit the elements that describe them (PhotometricInterpretation, "
            "PlanarConfiguration, BitsAllocated); export it again"
        ) from None
    return cells.astype(cells.dtype.newbyteorder("="), copy=False)


def _frame_code(dataset: Dataset, data: bytes, pixel: ImagePixel, index: int, name: str) -> bytes:
    """The compressed stream of a frame."""
    from pydicom.encaps import get_frame

    starts, lengths = (element(dataset, key, name) for key in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"))
    offsets = (starts, lengths) if isinstance(starts, bytes) and isinstance(lengths, bytes) else None
    try:
        return get_frame(data, index, number_of_frames=pixel.frames, extended_offsets=offsets)
    except Exception:  # pydicom raises whatever its parser ran into
        raise ImcError(f"{name} has damaged or incomplete pixel data; export it again") from None


def _compressed(code: bytes, pixel: ImagePixel, name: str) -> Frame:
    stream = read_codestream(code)
    if stream is None:
        raise _unreadable(pixel, name, "are damaged or that no installed decoder reads")
    _check(stream, pixel, name)
    signed = stream.signed or False
    try:
        cells = codec.decode(
            code,
            syntax=pixel.syntax,
            photometric=pixel.photometric,
            rows=stream.rows,
            columns=stream.columns,
            samples=stream.samples,
            bits=stream.precision,
            signed=signed,
        )
    except codec.DecodingError as error:
        raise _unreadable(pixel, name, str(error)) from None
    ybr = pixel.photometric in ("YBR_FULL", "YBR_FULL_422")
    if stream.samples == 3:
        # Chroma may be coarser than luma; red, green and blue are alike.
        colours = stream.colours or ("YBR" if stream.subsampled else "")
        ybr = ybr if not colours else colours == "YBR"
    if not signed and pixel.allocated > 8 * cells.dtype.itemsize:
        cells = cells.astype(f"u{pixel.allocated // 8}")  # a sign may stand above the stream's bits
    bits, high_bit = stream.precision, stream.precision - 1
    if stream.precision > pixel.stored and pixel.syntax in LOSSLESS:
        bits, high_bit = pixel.stored, pixel.high_bit
    elif pixel.syntax in JPEG_LOSSLESS:
        bits, high_bit = pixel.stored, pixel.stored - 1
    # JPEG 2000 knows signs, and a signed stream is right whatever the header says; an unsigned one may hold two's
    # complement all the same.
    values = cells if signed else _stored_bits(cells, bits, high_bit, pixel.signed)
    return Frame(values, cells, bits, ybr)


def _check(stream: Codestream, pixel: ImagePixel, name: str) -> None:
    """The stream against the header."""
    inside, said = stream.rows * stream.columns, pixel.rows * pixel.columns
    if (stream.rows, stream.columns) != (pixel.rows, pixel.columns):
        size = "a larger" if inside > said else "a smaller" if inside < said else "another"
        raise ImcError(f"{name} holds {size} picture than its header says (Rows, Columns); export it again")
    if stream.samples != pixel.samples:
        raise ImcError(
            f"{name} holds a stream of {stream.samples} samples and says {pixel.samples} (SamplesPerPixel); "
            "export it again"
        )
    if stream.precision > pixel.allocated:
        raise ImcError(
            f"{name} holds a stream of {stream.precision} bits and says {pixel.allocated} (BitsAllocated); "
            "export it again"
        )
    if stream.signed is not None and stream.subsampled:
        raise ImcError(f"{name} holds JPEG 2000 of several resolutions; export it uncompressed")
    if stream.samples == 3 and stream.signed:
        raise ImcError(f"{name} holds a stream of signed colours; export it uncompressed")
    if pixel.syntax in LOSSLESS and pixel.high_bit >= stream.precision > pixel.stored:
        raise ImcError(f"{name} counts bits up to {pixel.high_bit} (HighBit) that its stream lacks; export it again")


def _stored_bits(cells: np.ndarray, stored: int, high_bit: int, signed: bool) -> np.ndarray:
    """PS3.5 8.1.1: `stored` bits up to bit `high_bit` count, the others may hold anything."""
    width = 8 * cells.dtype.itemsize
    unsigned = cells.view(f"u{cells.dtype.itemsize}")
    if signed:
        top = unsigned << (width - 1 - high_bit) if high_bit < width - 1 else unsigned
        return top.view(f"i{cells.dtype.itemsize}") >> (width - stored)
    if stored == width:
        return unsigned
    return (unsigned >> (high_bit + 1 - stored)) & ((1 << stored) - 1)


def _unreadable(pixel: ImagePixel, name: str, why: str) -> ImcError:
    how = f"{pixel.syntax.name}, " if pixel.syntax.name != str(pixel.syntax) else ""
    return ImcError(f"{name} has pixel data that {why} ({how}{pixel.stored} bits); export it uncompressed")
