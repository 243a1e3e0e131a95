"""Loading pictures: any common format in, DICOM too, uint8 RGB out, one clear line for everything else."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from imc_lite.errors import ImcError, shown
from imc_lite.images.arrays import check_array
from imc_lite.images.dicom.file import is_dicom
from imc_lite.images.raster import load_raster

MAX_PIXELS = 100_000_000
LARGEST_FILE = 1 << 31  # bytes
Source = str | os.PathLike | bytes | BinaryIO | np.ndarray | Image.Image


@dataclass(frozen=True, eq=False)
class LoadedImage:
    """A picture, and how it is shown.

    Attributes:
        pixels: uint8 [H, W, 3] RGB.
        window: of a grey DICOM picture, as `imc_lite.images.dicom.windows.canonical` spells it, or `own` for the
            file's; None for every other picture.
        file: of a picture that came as one, DICOM apart, its bytes.
    """

    pixels: np.ndarray
    window: str | None
    file: bytes | None = None


def load_image(
    source: Source, *, window: str | None = None, frame: int | None = None, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Any picture as uint8 [H, W, 3] RGB.

    Grey, palette, CMYK and 1-bit pictures become RGB; transparency is laid on black; EXIF rotation is applied;
    of several frames the first is taken. 16-bit, 32-bit and float pictures are stretched from their own
    darkest to their brightest value, because 12-bit scans in a 16-bit file would come out black otherwise.
    DICOM is recognised by content and shown as a viewer does (`imc_lite.images.dicom.picture.load_dicom`, of
    imc-lite[dicom]). Safe to call from several threads.

    Args:
        source: a path, the bytes of a file, a binary stream, a Pillow image, or an array: [H, W] or
            [H, W, 3], uint8, or float within 0-1.
        window: of a grey DICOM picture: `lung`, `bone`, `brain`, `mediastinum`, `soft-tissue`, `full`, or
            `CENTRE,WIDTH`; the file's own by default. Of a CT also three of these with ":" between, for red, green and
            blue, or such three by name: `medgemma-ct`, `medgemma-1.5-ct`.
        frame: of a DICOM file, counted from 1; the first by default.
        max_pixels: more are refused.

    Returns:
        uint8 [H, W, 3]; of such an array that array itself, not a copy.

    Raises:
        ImcError: missing, a folder, not a picture of a known format, damaged, too large, not DICOM where a
            window or a frame is asked for, or a source of another type.
    """
    return load_shown(source, window=window, frame=frame, max_pixels=max_pixels).pixels


def load_shown(
    source: Source, *, window: str | None = None, frame: int | None = None, max_pixels: int = MAX_PIXELS
) -> LoadedImage:
    """What `load_image` gives, and how it is shown."""
    name, data, empty = "image", source, "is empty; export the picture again"
    if isinstance(source, (str, os.PathLike)):
        path = os.fsdecode(source)
        name, data = shown(path), _read(path)
    elif not isinstance(source, (bytes, np.ndarray, Image.Image)) and hasattr(source, "read"):
        data, empty = _read_stream(source), "stream is at its end; seek to its beginning, or give the bytes"
    if isinstance(data, (bytearray, memoryview)):
        data = bytes(data)
    if isinstance(data, bytes) and not data:
        raise ImcError(f"{name} {empty}")
    if isinstance(data, bytes) and is_dicom(data[:132], name):
        from imc_lite.images.dicom.picture import load_dicom

        return LoadedImage(*load_dicom(data, name, window, frame, max_pixels))
    if window is not None or frame is not None:
        raise ImcError(f"{name} is not DICOM, which alone has windows and frames; leave them out")
    if isinstance(data, np.ndarray):
        return LoadedImage(_from_array(data, max_pixels), None)
    if isinstance(data, (bytes, Image.Image)):
        return LoadedImage(load_raster(data, name, max_pixels), None, data if isinstance(data, bytes) else None)
    raise ImcError(
        f"an image must be a path, the bytes of a file, a binary stream, a Pillow image or an array, not "
        f"{type(data).__name__}; convert it first"
    )


def path_of(source: object) -> str | None:
    """The path that a source is, as text; None where it is none."""
    return os.fsdecode(source) if isinstance(source, (str, os.PathLike)) else None


def _read(path: str) -> bytes:
    name = shown(path)
    if path.lstrip()[:5].lower() == "data:":
        raise ImcError(f"{name} is a data URI, not a path; save the picture as a file and name that")
    try:
        if Path(path).is_dir():
            raise ImcError(f"{name} is a folder, not a picture; name one image file")
        # Refused before a small machine's memory is full of it; a pipe has no size.
        if (size := Path(path).stat().st_size) > LARGEST_FILE:
            raise ImcError(
                f"{name} has {size >> 20:,} MiB, at most {LARGEST_FILE >> 20:,} are read; give one picture of it"
            )
        data = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise ImcError(f"{name} does not exist; check the path") from error
    except (OSError, ValueError, MemoryError) as error:
        why = getattr(error, "strerror", None) or shown(error) or type(error).__name__
        raise ImcError(f"cannot read {name} ({why}); check the path and its permissions") from error
    return data


def _read_stream(stream: BinaryIO) -> bytes:
    try:
        data = stream.read()
    except Exception as error:  # closed, cut off by the other end, or whatever a stream of somebody's raises
        raise ImcError(f"the image stream cannot be read ({shown(error)}); open it again") from error
    if isinstance(data, str):
        raise ImcError("the image stream gives text; open it in binary mode")
    return data


def _from_array(array: np.ndarray, most: int) -> np.ndarray:
    array = np.asarray(array)  # a matrix, or one with masked values, has rules of its own
    check_array(array)
    if array.shape[0] * array.shape[1] > most:
        raise ImcError(f"image array has over {most // 1_000_000} million pixels; scale it down first")
    if array.dtype != np.uint8:
        array = np.rint(array * 255).astype(np.uint8)
    return np.repeat(array[..., None], 3, axis=2) if array.ndim == 2 else np.ascontiguousarray(array)
