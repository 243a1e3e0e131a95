"""Stored colours and palettes to 8-bit RGB."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from imc_lite.errors import ImcError
from imc_lite.images.dicom.frame import Frame
from imc_lite.images.dicom.lookup import read_table
from imc_lite.images.grey_levels import row_blocks

if TYPE_CHECKING:
    from pydicom import Dataset


def from_samples(frame: Frame, name: str) -> np.ndarray:
    """Three samples a pixel as uint8 [H, W, 3] RGB: the highest number that fits their bits becomes 255.

    Raises:
        ImcError: all pixels come out alike, though they are not.
    """
    picture = np.empty(frame.values.shape, np.uint8)
    # Colours have no sign; a header that says otherwise is wrong.
    samples = frame.values.view(f"u{frame.values.dtype.itemsize}")
    samples = samples & ((1 << frame.bits) - 1) if frame.bits < 8 * samples.dtype.itemsize else samples
    for rows in row_blocks(samples.shape):
        block = samples[rows].astype(np.float64)
        if frame.ybr:
            block = _rgb(block, 1 << (frame.bits - 1))
        picture[rows] = np.rint(np.clip(block * (255 / ((1 << frame.bits) - 1)), 0, 255))
    _check_varied(picture, samples, "BitsStored", name)
    return picture


def from_palette(dataset: Dataset, values: np.ndarray, signed: bool, name: str) -> np.ndarray:
    """Palette indices [H, W] as uint8 [H, W, 3] RGB, by the bits that the palette's descriptor says.

    Raises:
        ImcError: the palette is missing or damaged; all pixels come out alike, though they are not.
    """
    little = dataset.original_encoding[1] is not False
    picture = np.empty((*values.shape, 3), np.uint8)
    for channel, colour in enumerate(("Red", "Green", "Blue")):
        table = read_table(dataset, name, what="palette", colour=colour, little_endian=little, signed=signed or None)
        for rows in row_blocks(values.shape):
            picture[rows, :, channel] = np.rint(table(values[rows]) * (255 / table.top))
    _check_varied(picture, values, "its palette", name)
    return picture


def _rgb(ybr: np.ndarray, middle: int) -> np.ndarray:
    """PS3.3 C.7.6.3.1.2, YBR_FULL: ITU-R BT.601 over the full range, chroma zero at `middle`."""
    luma, blue, red = ybr[..., 0], ybr[..., 1] - middle, ybr[..., 2] - middle
    green = luma - (0.114 * 1.772 * blue + 0.299 * 1.402 * red) / 0.587
    return np.stack([luma + 1.402 * red, green, luma + 1.772 * blue], axis=-1)


def _check_varied(picture: np.ndarray, stored: np.ndarray, by: str, name: str) -> None:
    if all(len(np.unique(picture[..., c][:: max(1, picture.shape[0] - 1)])) == 1 for c in range(3)):
        # Two rows are alike: only now is it worth looking at all of them.
        first, origin = picture[:1, :1], stored[:1, :1]
        if (picture == first).all() and (stored != origin).any():
            raise ImcError(f"{name} comes out in one colour by {by}, though its pixels differ; export it again")
