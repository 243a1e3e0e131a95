"""Stored grey values to 8 bits.

A picture of one grey whose stored values differ is never given back: what made it so is named, or the values are
stretched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from imc_lite.errors import ImcError, shown
from imc_lite.images.dicom.frame import Frame
from imc_lite.images.dicom.image_pixel import ImagePixel, element, numbers
from imc_lite.images.dicom.transformations import MODALITY, Transformation, modality, of_frame, own_voi, window
from imc_lite.images.dicom.windows import WHOLE, WINDOWS, centre_and_width, channel_windows
from imc_lite.images.grey_levels import extent, row_blocks, scale

if TYPE_CHECKING:
    from pydicom import Dataset

# The padding value of each kind of pixel data (PS3.3 C.7.5.1.1.2).
PADDING = {"PixelData": "Pixel", "FloatPixelData": "FloatPixel", "DoubleFloatPixelData": "DoubleFloatPixel"}


def to_grey(dataset: Dataset, pixel: ImagePixel, frame: Frame, index: int, asked: str | None, name: str) -> np.ndarray:
    """A frame as uint8 [H, W], or [H, W, 3] where three windows are asked for.

    Stored values pass the modality table, or slope and intercept. Then they pass the window asked for, or the file's
    VOI table, or its first window, or are stretched from the darkest to the brightest. Then a PresentationLUTShape
    says whether they are inverted, or else MONOCHROME1 does. Padding and what is not a number is no part of the
    stretch, and black. Of three windows each makes a channel as it would make the grey picture alone.

    Args:
        dataset: the file's elements.
        pixel: those that describe its pixels.
        frame: stored values [H, W].
        index: of the frame, from 0.
        asked: a window in place of the file's own, or three, see `imc_lite.images.dicom.windows`.
        name: what the file is called in errors.

    Raises:
        ImcError: an element that cannot be applied, or that makes one grey of all; a window that does not apply;
            three windows for what is no CT in Hounsfield units.
    """
    left_out = _padding(dataset, pixel, frame, name)
    if frame.values.dtype.kind == "f":
        left_out = np.isnan(frame.values) if left_out is None else left_out | np.isnan(frame.values)
    stored = _range(frame.values, left_out, lambda values: values)
    if stored is None:
        raise ImcError(f"{name} is all padding (PixelPaddingValue) or not a number; give another picture")
    elements = of_frame(dataset, index, name)
    little = dataset.original_encoding[1] is not False
    first = modality(elements, name, little_endian=little, signed=pixel.signed or None)
    values = _range(frame.values, left_out, first.apply)
    if values is None or (values[0] == values[1] and stored[0] != stored[1]):
        raise ImcError(f"{name} comes out in one grey by its {first.element}; export it again")
    if asked is None:
        negative = pixel.signed or values[0] < 0 or None
        signed = False if first.element == "ModalityLUTSequence" else negative
        seconds = [own_voi(elements, name, little_endian=little, signed=signed)]
    else:
        modality_of = str(element(dataset, "Modality", name) or "").strip().upper()
        windows = channel_windows(asked)
        if len(windows) > 1:
            _check_hounsfield(elements, first, modality_of, name)
        elif asked in WINDOWS:
            _check_named(asked, elements, first, modality_of, name)
        function = "LINEAR" if first.whole and frame.values.dtype.kind != "f" else "LINEAR_EXACT"
        seconds = [_asked(one, first, function, name) for one in windows]

    def display(last: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        grey = np.empty(frame.values.shape, np.uint8)
        for rows in row_blocks(grey.shape):
            grey[rows] = last(first.apply(frame.values[rows]))
        return grey

    def stretched(block: np.ndarray) -> np.ndarray:
        return scale(block, *values)

    channels = [display(second.apply if second else stretched) for second in seconds]
    # A channel may be of one grey where another shows something: the brain window of a slice of air does that.
    if (
        all(seconds)
        and stored[0] != stored[1]
        and all(len(set(extent(grey, left_out) or ())) == 1 for grey in channels)
    ):
        by = seconds[0].element if seconds[0] and len(seconds) == 1 else f"--window {shown(asked, 40)}"
        if by != "WindowCenter":
            raise ImcError(
                f"{name} comes out in one grey by {by}, its values go from {values[0]:g} to {values[1]:g}; "
                "give another --window"
            )
        channels = [display(stretched)]  # a window of the file that shows one grey of many is a slip of its writer
    grey = channels[0] if len(channels) == 1 else np.stack(channels, axis=2)
    shape = str(element(dataset, "PresentationLUTShape", name) or "").strip().upper()
    if shape == "INVERSE" or (shape != "IDENTITY" and pixel.photometric == "MONOCHROME1"):
        grey = 255 - grey
    if left_out is not None:
        grey[left_out] = 0
    return grey


def _asked(asked: str, first: Transformation, function: str, name: str) -> Transformation | None:
    """The window a user asks for; None for the whole range."""
    numbers_of = centre_and_width(asked)
    if numbers_of is None:
        return None
    if not first.usable:
        raise ImcError(f"{name} has no usable {first.element}, so its units are unknown; give --window {WHOLE}")
    return window(*numbers_of, function, f"--window {shown(asked, 40)}")


def _check_named(asked: str, elements: Dataset, first: Transformation, modality_of: str, name: str) -> None:
    """Refuse a window that has a name, of Hounsfield units, for what is in no such units."""
    if modality_of != "CT":
        raise ImcError(f"{name} is no CT and {asked} is a window for CT; give --window CENTRE,WIDTH")
    if first.usable and (why := _no_hounsfield(elements, first, modality_of, name)) is not None:
        raise ImcError(f"{name} is not in Hounsfield units, {why}, and {asked} is; give --window CENTRE,WIDTH or none")


def _check_hounsfield(elements: Dataset, first: Transformation, modality_of: str, name: str) -> None:
    """Refuse three windows for what is not in Hounsfield units."""
    if (why := _no_hounsfield(elements, first, modality_of, name)) is not None:
        raise ImcError(f"{name} is not in Hounsfield units, {why}; three windows are for CT, give one --window or none")


def _no_hounsfield(elements: Dataset, first: Transformation, modality_of: str, name: str) -> str | None:
    """Why values after the modality step are in no Hounsfield units, as those of a CT with a rescale are; None where
    they are.

    RescaleType names other units where it is neither HU nor US, "unspecified" (PS3.3 C.11.1.1.2).
    """
    units = str(element(elements, "RescaleType", name) or "HU").strip().upper()
    if modality_of != "CT":
        return f"it is no CT (Modality {shown(modality_of, 16)})" if modality_of else "it names no Modality"
    if first.element != "RescaleSlope" or not all(key in elements for key in MODALITY[:2]):
        return "it has no RescaleSlope and RescaleIntercept"
    if not first.usable:
        return "its RescaleSlope is not usable"
    return None if units in ("HU", "US") else "its RescaleType names other units"


def _range(
    values: np.ndarray, left_out: np.ndarray | None, step: Callable[[np.ndarray], np.ndarray]
) -> tuple[float, float] | None:
    """Darkest and brightest after a step; None where nothing is left."""
    parts = [
        extent(step(values[rows]), None if left_out is None else left_out[rows]) for rows in row_blocks(values.shape)
    ]
    found = [part for part in parts if part]
    return (min(part[0] for part in found), max(part[1] for part in found)) if found else None


def _padding(dataset: Dataset, pixel: ImagePixel, frame: Frame, name: str) -> np.ndarray | None:
    """Where a frame is padding, bool [H, W]; None where the file speaks of none."""
    kind = PADDING[pixel.keyword]
    ends = [numbers(dataset, f"{kind}Padding{end}", name)[:1] for end in ("Value", "RangeLimit")]
    if not ends[0]:
        return None
    low, high = (end[0] for end in (ends[0], ends[1] or ends[0]))
    if frame.values.dtype.kind == "f":
        low, high = sorted((low, high))
        return (frame.values >= low) & (frame.values <= high)
    # Written as US or SS whatever the pixels are: the same 16 bits either way.
    bits = min(pixel.allocated, 16)
    padding = np.zeros(frame.values.shape, bool)
    for held in (frame.cells, frame.values):
        signed = held.dtype.kind == "i" or pixel.signed
        low_end, high_end = sorted(_wrapped(end, bits, signed) for end in (low, high))
        same = held.view(f"i{held.dtype.itemsize}") if signed else held
        padding |= (same >= low_end) & (same <= high_end)
    return padding


def _wrapped(value: float, bits: int, signed: bool) -> float:
    """A 16-bit number with the sign that `bits` bits give it, itself where it does not fit them."""
    if not -(1 << (bits - 1)) <= value < 1 << bits:
        return value
    wrapped = int(value) % (1 << bits)
    return wrapped - (1 << bits) if signed and wrapped >= 1 << (bits - 1) else wrapped
