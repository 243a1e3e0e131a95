"""Loading pictures: any common format in, DICOM too, uint8 RGB out, one clear line for everything else."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from imc_lite.errors import ImcError
from imc_lite.images.decoder_output import no_warnings
from imc_lite.images.dicom import is_dicom, load_dicom

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
MAX_PIXELS = 100_000_000
Source = str | os.PathLike | bytes | BinaryIO | np.ndarray | Image.Image


def load_image(
    source: Source, *, window: str | None = None, frame: int | None = None, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Any picture as uint8 [H, W, 3] RGB.

    Grey, palette, CMYK and 1-bit pictures become RGB; transparency is laid on black; EXIF rotation is applied;
    of several frames the first is taken. 16-bit, 32-bit and float pictures are stretched from their own
    darkest to their brightest value, because 12-bit scans in a 16-bit file would come out black otherwise.
    DICOM is recognised by content and shown as a viewer does (`imc_lite.images.dicom.load_dicom`, of imc-lite[dicom]).

    Args:
        source: a path, the bytes of a file, a binary stream, a Pillow image, or an array: [H, W] or
            [H, W, 3], uint8, or float within 0-1.
        window: of a grey DICOM picture: `lung`, `bone`, `brain`, `mediastinum`, `soft-tissue`, `full`, or
            `CENTRE,WIDTH`; the file's own by default.
        frame: of a DICOM file, counted from 1; the first by default.
        max_pixels: more are refused.

    Raises:
        ImcError: missing, a folder, not a picture of a known format, damaged, too large, or not DICOM where a
            window or a frame is asked for.
    """
    name, data = "image", source
    if isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        data = _read(Path(source))
    elif hasattr(source, "read"):
        data = source.read()
    if isinstance(data, bytes) and is_dicom(data[:132], name):
        return load_dicom(data, name, window, frame, max_pixels)
    if window is not None or frame is not None:
        raise ImcError(f"{name} is not DICOM; --window and --frame are for DICOM files, leave them out")
    if isinstance(data, np.ndarray):
        return _from_array(data, max_pixels)
    # Pillow warns about odd metadata and large pictures; our own checks say what matters.
    with no_warnings:
        try:
            if isinstance(data, Image.Image):
                return _to_rgb(data, name, max_pixels)
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                _check_size(picture.size, name, max_pixels)
                return _to_rgb(picture, name, max_pixels)
        except UnidentifiedImageError as error:
            raise ImcError(
                f"{name} is not a picture this reads, or is damaged; give a PNG, JPEG, BMP, TIFF, WebP or DICOM file"
            ) from error
        except Image.DecompressionBombError as error:
            raise ImcError(_too_large(name, max_pixels)) from error
        except (OSError, SyntaxError, ValueError, EOFError, OverflowError, MemoryError) as error:
            raise ImcError(f"{name} is damaged or incomplete ({_line(error)}); export it again") from error


def _read(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise ImcError(f"{path} is a folder, not a picture; name one image file")
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ImcError(f"{path} does not exist; check the path") from error
    except (OSError, ValueError) as error:
        raise ImcError(f"cannot read {path} ({_line(error)}); check the path and its permissions") from error
    if not data:
        raise ImcError(f"{path} is empty; export the picture again")
    return data


def _check_size(size: tuple[int, int], name: str, most: int) -> None:
    if size[0] * size[1] > most:
        raise ImcError(_too_large(name, most))
    if min(size) < 1:
        raise ImcError(f"{name} has no pixels; export it again")


def _too_large(name: str, most: int) -> str:
    return f"{name} has over {most // 1_000_000} million pixels; scale it down first"


def _to_rgb(picture: Image.Image, name: str, most: int) -> np.ndarray:
    _check_size(picture.size, name, most)
    picture.load()
    picture = ImageOps.exif_transpose(picture)
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        return np.repeat(_stretch(np.asarray(picture))[..., None], 3, axis=2)
    if picture.mode == "LA" or picture.mode == "PA" or "transparency" in picture.info:
        picture = picture.convert("RGBA")
    if picture.mode == "RGBA":
        black = Image.new("RGBA", picture.size, (0, 0, 0, 255))
        picture = Image.alpha_composite(black, picture)
    return np.asarray(picture.convert("RGB"))


def _stretch(values: np.ndarray) -> np.ndarray:
    values = np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = values.min(), values.max()
    span = high - low
    return np.rint((values - low) * (255 / span if span > 0 else 0)).astype(np.uint8)


def _from_array(array: np.ndarray, most: int) -> np.ndarray:
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=2)
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ImcError(f"an image array must be [H, W] or [H, W, 3], not {list(array.shape)}; convert it first")
    if array.shape[0] * array.shape[1] > most:
        raise ImcError(_too_large("image array", most))
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if np.issubdtype(array.dtype, np.floating) and array.min() >= 0 and array.max() <= 1:
        return np.rint(array * 255).astype(np.uint8)
    raise ImcError(f"an image array must be uint8, or float within 0-1, not {array.dtype}; convert it first")


def _line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).splitlines()
    return lines[0][:120] if lines else type(error).__name__
