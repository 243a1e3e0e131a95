"""DICOM pictures: stored values in, uint8 RGB out, as a viewer would show them (DICOM PS3.3, C.7.6.3 and C.11).

Nothing but pixels leaves this module. What pydicom says about a file may quote its elements, and these name the
patient; so its words are neither shown nor logged, and our own lines speak of format and size alone.
"""

from __future__ import annotations

import io
import logging
import re
import struct
import zlib
from functools import lru_cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from imc_lite.errors import ImcError
from imc_lite.images.decoder_output import no_stderr, no_warnings

if TYPE_CHECKING:
    from pydicom import Dataset

# Centre and width in Hounsfield units, as CT consoles offer them (https://radiopaedia.org/articles/windowing-ct).
WINDOWS = {
    "bone": (400.0, 1800.0),
    "brain": (40.0, 80.0),
    "lung": (-600.0, 1500.0),
    "mediastinum": (50.0, 350.0),
    "soft-tissue": (50.0, 400.0),
}
WHOLE = "full"  # from the darkest value to the brightest
MAX_INFLATED = 1 << 30
DEFLATED = b"1.2.840.10008.1.2.1.99"
# What the first element of a file without a preamble looks like: group 2 or 8, either byte order.
FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08")
OTHER_PICTURES = (b"\x89PNG", b"\xff\xd8", b"BM", b"II*\0", b"MM\0*", b"RIFF")
LOOK = (
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "WindowCenter", "WindowWidth"),
    *("VOILUTFunction", "VOILUTSequence", "PixelPaddingValue", "PixelPaddingRangeLimit"),
)


def is_dicom(head: bytes, name: str = "") -> bool:
    """Whether a file that begins with `head` (132 bytes or more) is DICOM; `name` decides where bytes cannot."""
    if head[128:132] == b"DICM":
        return True
    if head.startswith(OTHER_PICTURES):
        return False
    return head.startswith(FIRST_GROUPS) or (bool(head) and name.lower().endswith((".dcm", ".dicom")))


def check_window(window: str) -> str:
    """The window as given, if it can be one: a preset of `WINDOWS`, `full`, or `CENTRE,WIDTH`.

    Raises:
        ImcError: it cannot.
    """
    if window not in WINDOWS and window != WHOLE:
        _numbers(window)
    return window


def load_dicom(data: bytes, name: str, window: str | None, frame: int | None, max_pixels: int) -> np.ndarray:
    """One frame of a DICOM file as uint8 [H, W, 3] RGB.

    Grey values pass the file's rescale or modality table, then the window; MONOCHROME1 is inverted. Without a window
    of its own a grey picture is stretched from its darkest to its brightest value, padding left out. YBR and palette
    colours become RGB.

    Args:
        data: the file.
        name: what the file is called in errors.
        window: a preset, `full` or `CENTRE,WIDTH` in place of the file's first window or table; grey pictures only.
        frame: counted from 1, as DICOM does; the first by default.
        max_pixels: most pixels of a frame.

    Raises:
        ImcError: pydicom is not installed; not DICOM, damaged, without a picture, encoded in a way that no installed
            decoder reads, too large; no such frame; a window that does not apply.
    """
    pydicom = _pydicom(name)
    if window is not None:
        check_window(window)
    try:
        with no_warnings:
            return _load(pydicom, data, name, window, frame, max_pixels)
    except ImcError:
        raise
    except Exception as error:  # whatever slipped through may quote the file too
        raise ImcError(f"{name} cannot be shown ({type(error).__name__}); export it again") from None


def _load(
    pydicom: ModuleType, data: bytes, name: str, window: str | None, frame: int | None, max_pixels: int
) -> np.ndarray:
    dataset = _read(pydicom, data, name)
    index = _check(pydicom, dataset, name, frame, max_pixels)
    photometric = str(dataset.get("PhotometricInterpretation", ""))
    values = _decode(pydicom, dataset, name, index)
    if values.ndim == 3 or photometric == "PALETTE COLOR":
        if window is not None:
            raise ImcError(f"{name} is a colour picture and has no window; leave --window out")
        return _colour(pydicom, dataset, values, name)
    try:
        look = _look(pydicom, dataset, index)
        grey = _grey(pydicom, values, look, window, str(dataset.get("Modality", "")), name)
    except (ValueError, TypeError, AttributeError, KeyError, IndexError, OverflowError):
        raise ImcError(f"{name} has a rescale or window that cannot be applied; export it again") from None
    if photometric == "MONOCHROME1":
        grey = 255 - grey
    return np.repeat(grey[..., None], 3, axis=2)


@lru_cache(maxsize=1)
def _import() -> ModuleType | None:
    try:
        import pydicom
    except ImportError:
        return None
    logger = logging.getLogger("pydicom")
    logger.propagate = False
    logger.addHandler(logging.NullHandler())
    try:
        import gdcm
    except ImportError:
        return pydicom
    for switch in (gdcm.Trace.DebugOff, gdcm.Trace.WarningOff, gdcm.Trace.ErrorOff):
        switch()
    return pydicom


def _pydicom(name: str) -> ModuleType:
    module = _import()
    if module is None:
        raise ImcError(f"{name} is a DICOM file and pydicom is not installed; install imc-lite[dicom]")
    return module


def _read(pydicom: ModuleType, data: bytes, name: str) -> Dataset:
    _check_inflated(data, name)
    try:
        dataset = pydicom.dcmread(io.BytesIO(data), force=True)
        known = "PixelData" in dataset or "DirectoryRecordSequence" in dataset
        if not known and not any(element.tag.group == 8 for element in dataset):
            raise ImcError(f"{name} is not a DICOM file, or is damaged; export it again")
        if "TransferSyntaxUID" not in dataset.file_meta:
            # Files without a header are what the bytes show: no compression, either byte order.
            implicit, little = dataset.original_encoding
            syntaxes = {(True, True): "ImplicitVRLittleEndian", (False, True): "ExplicitVRLittleEndian"}
            syntax = syntaxes.get((bool(implicit), bool(little)), "ExplicitVRBigEndian")
            dataset.file_meta.TransferSyntaxUID = getattr(pydicom.uid, syntax)
    except ImcError:
        raise
    except Exception:  # pydicom raises whatever its parser ran into, with the file's own words
        raise ImcError(f"{name} is a damaged or incomplete DICOM file; export it again") from None
    return dataset


def _check_inflated(data: bytes, name: str) -> None:
    """A deflated file of a few kilobytes may hold terabytes of zeros; count before anything keeps them."""
    if data[128:132] != b"DICM" or DEFLATED not in data[132:2048]:
        return
    (length,) = struct.unpack("<I", data[140:144])
    unpacker, size, rest = zlib.decompressobj(-zlib.MAX_WBITS), 0, data[144 + length :]
    try:
        while rest and size <= MAX_INFLATED:
            size += len(unpacker.decompress(rest, 1 << 24))
            rest = unpacker.unconsumed_tail
    except zlib.error:
        raise ImcError(f"{name} is a damaged or incomplete DICOM file; export it again") from None
    if size > MAX_INFLATED:
        raise ImcError(f"{name} unpacks to over {MAX_INFLATED >> 20} MiB; export it without deflating")


def _check(pydicom: ModuleType, dataset: Dataset, name: str, frame: int | None, max_pixels: int) -> int:
    """The index of the frame that is wanted, when it is there and not too large."""
    if not any(key in dataset for key in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        kind = pydicom.uid.UID(str(dataset.get("SOPClassUID", "")))
        if not kind and "DirectoryRecordSequence" in dataset:
            kind = pydicom.uid.MediaStorageDirectoryStorage
        # A private UID could tell where a file comes from; only names of the standard are spoken.
        what = f" ({kind.name})" if kind and kind.name != str(kind) else ""
        raise ImcError(f"{name} is a DICOM file without a picture{what}; give an image object")
    try:
        rows, columns = int(dataset.Rows), int(dataset.Columns)
        frames = int(dataset.get("NumberOfFrames") or 1)
        compressed = dataset.file_meta.TransferSyntaxUID.is_compressed
    except (ValueError, TypeError, AttributeError):
        raise ImcError(f"{name} does not say its size or number of frames; export it again") from None
    if rows < 1 or columns < 1 or frames < 1:
        raise ImcError(f"{name} has no pixels; export it again")
    if rows * columns > max_pixels:
        raise ImcError(f"{name} has over {max_pixels // 1_000_000} million pixels; scale it down first")
    if frame is not None and not 1 <= frame <= frames:
        raise ImcError(f"{name} has no frame {frame}; give one of 1 to {frames}")
    index = (frame or 1) - 1
    if compressed:
        try:
            code = pydicom.encaps.get_frame(dataset.PixelData, index, number_of_frames=frames)
        except Exception:  # as in _read
            raise ImcError(f"{name} has damaged or incomplete pixel data; export it again") from None
        if coded_pixels(code) > max(rows * columns, 1 << 16):
            raise ImcError(f"{name} holds a larger picture than its header says; export it again")
    return index


def coded_pixels(code: bytes) -> int:
    """Pixels that a JPEG, JPEG-LS or JPEG 2000 stream announces, 0 where it announces none.

    Decoders believe the stream and not the DICOM header: a few bytes could make them ask for all memory.
    """
    start = code.find(b"\xff\x4f\xff\x51", 0, 512)
    if start >= 0 and len(code) >= start + 24:
        right, bottom, left, top = struct.unpack(">4I", code[start + 8 : start + 24])
        return max(0, right - left) * max(0, bottom - top)
    at = 2
    while at + 9 <= len(code) and code[at] == 0xFF:
        marker = code[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            height, width = struct.unpack(">HH", code[at + 5 : at + 9])
            return height * width
        at += 2 + struct.unpack(">H", code[at + 2 : at + 4])[0]
    return 0


def _decode(pydicom: ModuleType, dataset: Dataset, name: str, index: int) -> np.ndarray:
    """Stored values of a frame: [H, W], or [H, W, 3] with YBR already RGB."""
    try:
        # GDCM's JPEG codecs write their complaints to file descriptor 2 themselves.
        with no_stderr:
            values = pydicom.pixels.pixel_array(dataset, index=index)
    except Exception:  # as in _read
        syntax = dataset.file_meta.TransferSyntaxUID
        how = f"{syntax.name}, " if syntax.name != str(syntax) else ""
        bits = dataset.get("BitsStored")
        said = f" ({how}{bits} bits)" if isinstance(bits, int) else ""
        raise ImcError(
            f"{name} has pixel data that are damaged or that no installed decoder reads{said}; export it uncompressed"
        ) from None
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] != 3):
        raise ImcError(f"{name} has pixels of {values.shape[-1]} samples; give a grey or RGB picture")
    return values


def _colour(pydicom: ModuleType, dataset: Dataset, values: np.ndarray, name: str) -> np.ndarray:
    top = (1 << int(dataset.get("BitsStored", 8))) - 1
    if values.ndim == 2:
        try:
            values = pydicom.pixels.apply_color_lut(values, dataset)[..., :3]
        except Exception:  # as in _read
            raise ImcError(f"{name} has a damaged palette; export it again") from None
        # Some tables say 16 bits and hold 8.
        top = 65535 if values.max() > 255 else 255
    if top == 255 and values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    return np.rint(np.clip(values.astype(np.float32) * (255 / top), 0, 255)).astype(np.uint8)


def _look(pydicom: ModuleType, dataset: Dataset, index: int) -> Dataset:
    """The elements that turn stored values into grey: the frame's own, else those shared by all, else the file's."""
    sources = [dataset]
    shared, own = (dataset.get(f"{w}FunctionalGroupsSequence") for w in ("Shared", "PerFrame"))
    for group in ([*shared][:1] if shared else []) + ([own[index]] if own and index < len(own) else []):
        for sequence in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
            sources += [*(group.get(sequence) or [])][:1]
    look = pydicom.Dataset()
    for source in sources:
        for key in LOOK:
            if key in source:
                look[key] = source[key]
    return look


def _grey(
    pydicom: ModuleType, stored: np.ndarray, look: Dataset, window: str | None, modality: str, name: str
) -> np.ndarray:
    """Stored values [H, W] -> uint8 [H, W], 255 for the highest value of the window."""
    if look.get("ModalityLUTSequence"):
        values = pydicom.pixels.apply_modality_lut(stored, look).astype(np.float32)
    else:
        slope, intercept = _first(look, "RescaleSlope", 1.0), _first(look, "RescaleIntercept", 0.0)
        values = np.nan_to_num(stored.astype(np.float32), posinf=0.0, neginf=0.0) * (slope or 1.0) + intercept
    if window == WHOLE:
        return _stretch(values, stored, look)
    if window is not None:
        if window in WINDOWS and modality != "CT":
            raise ImcError(f"{name} is no CT and {window} is a window for CT; give --window CENTRE,WIDTH")
        return _windowed(values, *(WINDOWS.get(window) or _numbers(window)), "LINEAR")
    if table := look.get("VOILUTSequence"):
        entries = table[0].LUTData
        entries = np.frombuffer(entries, np.uint16) if isinstance(entries, bytes) else np.asarray(entries)
        shown = pydicom.pixels.apply_voi(np.rint(values).astype(np.int32), look).astype(np.float32)
        return _scale(shown, float(entries.min()), float(entries.max()))
    centre, width = _first(look, "WindowCenter", None), _first(look, "WindowWidth", None)
    if centre is None or width is None or width <= 0:
        return _stretch(values, stored, look)
    shown = _windowed(values, centre, width, str(look.get("VOILUTFunction") or "LINEAR"))
    # A window that shows one grey of a picture with many is a slip of the writer.
    return _stretch(values, stored, look) if shown.min() == shown.max() else shown


def _windowed(values: np.ndarray, centre: float, width: float, function: str) -> np.ndarray:
    """DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    if function == "SIGMOID":
        slope = np.clip(-4 * (values - centre) / width, -80, 80)
        return np.rint(255 / (1 + np.exp(slope))).astype(np.uint8)
    if function == "LINEAR_EXACT":
        return _scale(values, centre - width / 2, centre + width / 2)
    half = max(width - 1, 0) / 2
    return _scale(values, centre - 0.5 - half, centre - 0.5 + half)


def _stretch(values: np.ndarray, stored: np.ndarray, look: Dataset) -> np.ndarray:
    inside = np.ones(stored.shape, bool)
    if (padding := _first(look, "PixelPaddingValue", None)) is not None:
        low, high = sorted((padding, _first(look, "PixelPaddingRangeLimit", padding)))
        inside = (stored < low) | (stored > high)
    kept = values[inside] if inside.any() else values
    return _scale(values, float(kept.min()), float(kept.max()))


def _scale(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """`low` to 0, `high` to 255; where both are one, what lies above is 255."""
    if high <= low:
        return np.where(values > high, 255, 0).astype(np.uint8)
    return np.rint(np.clip((values - low) * (255 / (high - low)), 0, 255)).astype(np.uint8)


def _first(look: Dataset, key: str, default: Any) -> Any:
    """A number, the first of several; what is empty counts as missing."""
    value = look.get(key)
    if value is not None and not isinstance(value, (str, bytes, int, float)) and hasattr(value, "__len__"):
        value = value[0] if len(value) else None
    return default if value is None or value == "" else float(value)


def _numbers(window: str) -> tuple[float, float]:
    parts = re.fullmatch(r"\s*(-?\d{1,9}(?:\.\d{1,9})?)\s*,\s*(\d{1,9}(?:\.\d{1,9})?)\s*", window)
    if parts is None or float(parts[2]) <= 0:
        choices = ", ".join([*WINDOWS, WHOLE])
        raise ImcError(f"{window[:40]!r} is no window; give {choices}, or CENTRE,WIDTH in the picture's own units")
    return float(parts[1]), float(parts[2])
