"""Colours of 16 bits a sample in PNG and TIFF files: Pillow keeps the upper 8, and dark scans come out black.

Pillow unpacks samples by a raw mode that names their byte order. Asked for the other order it keeps the other byte, so
two decodings give all 16 bits. https://pillow.readthedocs.io/en/stable/handbook/writing-your-own-image-plugin.html
"""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
from PIL import Image, ImageFile, ImageOps

from imc_lite.errors import ImcError
from imc_lite.images.grey_levels import stretch

OTHER_ORDER = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}
PLANAR = 284  # the TIFF tag PlanarConfiguration; 2 where each sample has a plane of its own


def deep_colours(data: bytes, picture: Image.Image, name: str) -> np.ndarray | None:
    """uint8 [H, W, 3] RGB, stretched from the darkest to the brightest sample; None where samples have 8 bits.

    What is transparent is laid on black, and no part of the stretch where nothing of it is seen.

    Args:
        data: the file.
        picture: as Pillow opened it, not loaded.
        name: what the file is called in errors.

    Raises:
        ImcError: a TIFF with planes of 16 bits.
    """
    tags = getattr(picture, "tag_v2", {})
    if tags.get(PLANAR) == 2 and 16 in tags.get(258, ()) and picture.mode in ("RGB", "RGBA", "CMYK"):
        raise ImcError(f"{name} has 16-bit colours in separate planes; export it with interleaved samples")
    rawmode = _rawmode(picture)
    kind, _, order = rawmode.partition(";16")
    if not order or picture.mode not in ("RGB", "RGBA", "CMYK"):
        return None
    if kind == "LA":  # no raw mode gives its lower bytes, but four bytes a pixel are those of RGBA
        both = _decoded(data, "RGBA").astype(np.uint16)
        samples = both[..., ::2] << 8 | both[..., 1::2]
    else:
        kind = kind.replace("a", "A")  # colours already multiplied by their opacity, as they will be
        upper, lower = (_decoded(data, f"{kind};16{o}") for o in (order, OTHER_ORDER[order]))
        samples = upper.astype(np.uint16) << 8 | lower
    return _to_rgb(samples, rawmode.partition(";")[0], picture.info.get("transparency"))


def _to_rgb(samples: np.ndarray, kind: str, clear: object) -> np.ndarray:
    """uint16 [H, W, C] as uint8 RGB.

    Args:
        samples: as the file has them.
        kind: what they are: Pillow's name of the raw mode.
        clear: the one colour that a PNG says is transparent.
    """
    colours, hidden, opacity = samples, None, None
    if kind == "CMYK":
        black = 65535 - samples[..., 3:].astype(np.uint32)
        colours = ((65535 - samples[..., :3]) * black // 65535).astype(np.uint16)
    elif kind in ("LA", "RGBA"):
        colours, opacity = samples[..., :-1], samples[..., -1:]
        hidden = opacity[..., 0] == 0
    elif kind == "RGBa":
        colours = samples[..., :3]
    elif isinstance(clear, tuple):
        hidden = (samples == np.array(clear)).all(axis=-1)
    picture = stretch(colours, hidden)
    if picture is None:
        return np.zeros((*samples.shape[:2], 3), np.uint8)
    if hidden is not None:
        picture[hidden] = 0
    if opacity is not None:
        picture = np.rint(picture * (opacity / np.float32(65535))).astype(np.uint8)
    return np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture


def _rawmode(picture: Image.Image) -> str:
    tiles = picture.tile if isinstance(picture, ImageFile.ImageFile) else []
    arguments = tiles[0][3] if tiles else ""
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _decoded(data: bytes, rawmode: str) -> np.ndarray:
    """The file's pixels, uint8, unpacked by another raw mode."""
    with Image.open(io.BytesIO(data), formats=("PNG", "TIFF")) as picture:
        assert isinstance(picture, ImageFile.ImageFile)
        picture.tile = [tile._replace(args=_renamed(tile.args, rawmode)) for tile in picture.tile]
        picture.load()
        ImageOps.exif_transpose(picture, in_place=True)
        return np.asarray(picture)


def _renamed(arguments: tuple[Any, ...] | str | None, rawmode: str) -> tuple[Any, ...] | str:
    """A tile's decoder arguments with another raw mode."""
    return (rawmode, *arguments[1:]) if isinstance(arguments, tuple) else rawmode
