"""PNG, JPEG, BMP, TIFF and WebP through Pillow, and what Pillow alone gets wrong of deep and odd ones."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from imc_lite.errors import ImcError, shown
from imc_lite.images.decoder_output import no_stderr, no_warnings
from imc_lite.images.deep_colour import deep_colours
from imc_lite.images.grey_levels import stretch

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
MOST_SCANS = 100  # of a progressive JPEG, as libtiff has it: each passes over the whole picture
MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]", re.DOTALL)  # of a JPEG; those left out have no length behind them
STRIP_PIXELS = 1 << 22
# Baseline TIFF tags (TIFF 6.0, part 1).
BITS_PER_SAMPLE, PHOTOMETRIC, COLOUR_MAP, SAMPLE_FORMAT = 258, 262, 320, 339
WHITE_IS_ZERO, UNSIGNED, SIGNED = 0, 1, 2
# What says in Pillow's `info` which value of a mode is transparent.
CLEAR: dict[str, type | tuple[type, ...]] = {"1": int, "L": int, "RGB": tuple, "P": (bytes, int)}
LOADING = threading.Lock()  # Pillow reads the rest of an opened file on first use, and not for several threads at once


def load_raster(source: bytes | Image.Image, name: str, max_pixels: int) -> np.ndarray:
    """A file, or what Pillow made of one, as uint8 [H, W, 3] RGB.

    More than 8 bits a sample are stretched from the darkest to the brightest. Of a Pillow image only the bits that
    Pillow kept are there to stretch: it keeps 8 of colours.

    Args:
        source: the file's bytes, or an image.
        name: what it is called in errors.
        max_pixels: most pixels.

    Raises:
        ImcError: another format, damaged, too large.
    """
    # Pillow warns about odd metadata and large pictures; our own checks say what matters.
    with no_warnings:
        try:
            if isinstance(source, Image.Image):
                _check_size(source.size, name, max_pixels)
                with LOADING:
                    source.load()
                tags = getattr(source, "tag_v2", {})  # which the copy that is turned lacks
                turned = ImageOps.exif_transpose(source)
                _mend_colour_map(turned, tags)
                return _to_rgb(turned, name, tags)
            # libtiff writes its complaints to file descriptor 2 itself.
            with no_stderr if source[:2] in (b"II", b"MM") else nullcontext():
                return _decode(source, name, max_pixels)
        except UnidentifiedImageError as error:
            raise ImcError(
                f"{name} is not a picture this reads, or is damaged; give a PNG, JPEG, BMP, TIFF, WebP or DICOM file"
            ) from error
        except Image.DecompressionBombError as error:
            raise ImcError(_too_large(name, max_pixels)) from error
        except ImcError:
            raise
        except Exception as error:  # Pillow's readers raise whatever a damaged file led them into
            raise ImcError(f"{name} is damaged or incomplete ({_why(error)}); export it again") from error


def _decode(data: bytes, name: str, max_pixels: int) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
        _check_size(picture.size, name, max_pixels)
        # Pillow calls a JPEG that names further pictures behind it MPO.
        if picture.format in ("JPEG", "MPO") and data.count(b"\xff\xda") > MOST_SCANS and _scans(data) > MOST_SCANS:
            raise ImcError(f"{name} is a JPEG of over {MOST_SCANS} scans; export it as PNG")
        if (deep := deep_colours(data, picture, name)) is not None:
            return deep
        picture.load()
        tags = getattr(picture, "tag_v2", {})
        _mend_colour_map(picture, tags)
        ImageOps.exif_transpose(picture, in_place=True)
        return _to_rgb(picture, name, tags)


def _scans(data: bytes) -> int:
    """The scans of a JPEG up to its end (ISO/IEC 10918-1, B.2.1), one more than `MOST_SCANS` at most; what a telephone
    puts behind that is no part of it."""
    count, at = 0, 2
    while count <= MOST_SCANS and (found := MARKER.search(data, at)) is not None:
        kind, at = found[0][1], found.end()
        if kind == 0xD9:
            break
        count += kind == 0xDA
        at += int.from_bytes(data[at : at + 2], "big")
    return count


def _check_size(size: tuple[int, int], name: str, most: int) -> None:
    if size[0] * size[1] > most:
        raise ImcError(_too_large(name, most))
    if min(size) < 1:
        raise ImcError(f"{name} has no pixels; export it again")


def _too_large(name: str, most: int) -> str:
    return f"{name} has over {most // 1_000_000} million pixels; scale it down first"


def _to_rgb(picture: Image.Image, name: str, tags: Mapping[int, Any]) -> np.ndarray:
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16") or tags.get(SAMPLE_FORMAT) == (SIGNED,):
        return np.repeat(_deep_grey(picture, name, tags)[..., None], 3, axis=2)
    width, height = picture.size
    rgb = np.empty((height, width, 3), np.uint8)
    # By strips: Pillow holds four bytes a pixel of each step between, of a large picture more than a gigabyte in all.
    rows = max(1, STRIP_PIXELS // width)
    for top in range(0, height, rows):
        strip = picture.crop((0, top, width, min(height, top + rows)))
        rgb[top : top + rows] = np.asarray(_on_black(strip))
    return rgb


def _on_black(picture: Image.Image) -> Image.Image:
    """In mode RGB, what is transparent on black."""
    fits = CLEAR.get(picture.mode)
    if fits is not None and not isinstance(picture.info.get("transparency"), fits):
        picture.info.pop("transparency", None)  # of the mode that it was converted from
    clear = picture.palette is not None and picture.palette.mode == "RGBA"
    if clear or picture.mode in ("LA", "La", "PA", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
    if picture.mode == "RGBA":
        black = Image.new("RGBA", picture.size, (0, 0, 0, 255))
        picture = Image.alpha_composite(black, picture)
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _deep_grey(picture: Image.Image, name: str, tags: Mapping[int, Any]) -> np.ndarray:
    """Grey of 16 or 32 bits, signed or float, as uint8 [H, W]; `tags` are a TIFF's."""
    values = np.asarray(picture)
    sign = tags.get(SAMPLE_FORMAT, (UNSIGNED,))[0]
    if picture.mode == "I" and tags.get(BITS_PER_SAMPLE) == (32,) and sign == UNSIGNED:
        values = values.view(np.uint32)  # Pillow has 32 bits with a sign only
    elif picture.mode == "L":
        values = values.view(np.int8)  # and 8 without one
    hidden = np.isnan(values) if values.dtype.kind == "f" else None
    if isinstance(clear := picture.info.get("transparency"), int):  # the one grey that a PNG says is transparent
        hidden = values == clear
    grey = stretch(values, hidden)
    if grey is None:
        raise ImcError(f"{name} has no pixel that is a number, or all are transparent; export it again")
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        grey = 255 - grey
    if hidden is not None:
        grey[hidden] = 0
    return grey


def _mend_colour_map(picture: Image.Image, tags: Mapping[int, Any]) -> None:
    """A TIFF's palette has 16 bits; some writers fill in 8, which Pillow takes for black. libtiff has the same cure."""
    entries = tags.get(COLOUR_MAP)
    if picture.mode == "P" and entries and 0 < max(entries) < 256:
        picture.putpalette(bytes(entries), "RGB;L")


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).splitlines()
    if not lines or lines[0].startswith("decoder error"):  # a number of Pillow's own
        return "broken data"
    return shown(lines[0])
