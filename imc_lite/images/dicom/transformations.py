"""The steps from stored values to grey (DICOM PS3.3 C.11.1 and C.11.2): modality, then values of interest (VOI)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from imc_lite.errors import ImcError
from imc_lite.images.dicom.image_pixel import element, numbers
from imc_lite.images.dicom.lookup import read_table
from imc_lite.images.grey_levels import scale

if TYPE_CHECKING:
    from pydicom import Dataset

MODALITY = ("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "RescaleType")
VOI = ("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence")
# X-ray angiographic, radiofluoroscopic and biplane images. Their modality step leads back to the intensity of the rays
# (PS3.3 C.8.7.1.1.2) and is no part of what is shown; DCMTK (dimomod.cc), dcm4che and fo-dicom pass it over too.
BACK_TO_INTENSITY = tuple(f"1.2.840.10008.5.1.4.1.1.12.{number}" for number in (1, 2, 3))


@dataclass(frozen=True)
class Transformation:
    """A step, named after the element that asks for it; `usable` is False where its numbers are none, `whole` where it
    may make fractions of whole numbers."""

    element: str
    apply: Callable[[np.ndarray], np.ndarray]
    usable: bool = True
    whole: bool = True


def of_frame(dataset: Dataset, index: int, name: str) -> Dataset:
    """The elements of both steps: frame `index`'s own, else those shared by all frames, else the file's.

    The elements of a step are taken from one place: a frame's window does not mix with the file's table.
    """
    from pydicom import Dataset

    found = Dataset()
    _take(dataset, found)
    for groups, at in (("SharedFunctionalGroupsSequence", 0), ("PerFrameFunctionalGroupsSequence", index)):
        if (group := _item(dataset, groups, at, name)) is not None:
            for key in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
                if (item := _item(group, key, 0, name)) is not None:
                    _take(item, found)
    if str(element(dataset, "SOPClassUID", name) or "") in BACK_TO_INTENSITY:
        for key in MODALITY:
            if key in found:
                del found[key]
    return found


def modality(elements: Dataset, name: str, *, little_endian: bool, signed: bool | None) -> Transformation:
    """Stored values to those of the modality, such as Hounsfield units, as float64.

    A slope of 0 and numbers that are none change nothing and are not usable; so does DCMTK.

    Raises:
        ImcError: a table that does not fit its descriptor, or text where numbers should be.
    """
    if (item := _item(elements, "ModalityLUTSequence", 0, name)) is not None:
        table = read_table(item, name, what="ModalityLUTSequence", little_endian=little_endian, signed=signed)
        return Transformation("ModalityLUTSequence", lambda stored: table(stored).astype(np.float64))
    slope, intercept = (_first(elements, key, name) for key in MODALITY[:2])
    slope, intercept = 1.0 if slope is None else slope, intercept or 0.0
    usable = math.isfinite(slope) and math.isfinite(intercept) and slope != 0
    if not usable:
        slope, intercept = 1.0, 0.0

    def rescale(stored: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return stored.astype(np.float64) * slope + intercept

    return Transformation("RescaleSlope", rescale, usable, slope.is_integer() and intercept.is_integer())


def own_voi(elements: Dataset, name: str, *, little_endian: bool, signed: bool | None) -> Transformation | None:
    """The file's table, or its first window, to uint8; None where it has neither.

    Args:
        elements: see `of_frame`.
        name: what the file is called in errors.
        little_endian: the file's byte order.
        signed: whether values can be negative after the modality step, see `read_table`.

    Raises:
        ImcError: a table that does not fit its descriptor, or text where numbers should be.
    """
    if (item := _item(elements, "VOILUTSequence", 0, name)) is not None:
        table = read_table(item, name, what="VOILUTSequence", little_endian=little_endian, signed=signed)
        return Transformation("VOILUTSequence", lambda values: scale(table(values), 0, table.top))
    centre, width = _first(elements, "WindowCenter", name), _first(elements, "WindowWidth", name)
    if centre is None or width is None or not math.isfinite(centre) or not math.isfinite(width) or width <= 0:
        return None
    function = str(element(elements, "VOILUTFunction", name) or "LINEAR").strip().upper()
    return window(centre, width, function, "WindowCenter")


def window(centre: float, width: float, function: str, asked_by: str) -> Transformation:
    """A window to uint8 (C.11.2.1.2 and C.11.2.1.3); `function` is LINEAR, LINEAR_EXACT or SIGMOID.

    LINEAR is for whole numbers and widths of 1 and more; what is narrower can only be meant exactly.
    """
    if function != "SIGMOID" and width < 1:
        function = "LINEAR_EXACT"

    def sigmoid(values: np.ndarray) -> np.ndarray:
        power = np.clip(-4 * (values - centre) / width, -80, 80)
        return np.rint(np.nan_to_num(255 / (1 + np.exp(power)))).astype(np.uint8)

    if function == "SIGMOID":
        return Transformation(asked_by, sigmoid)
    half = width / 2 if function == "LINEAR_EXACT" else (width - 1) / 2
    middle = centre if function == "LINEAR_EXACT" else centre - 0.5
    return Transformation(asked_by, lambda values: scale(values, middle - half, middle + half))


def _take(source: Dataset, found: Dataset) -> None:
    for step in (MODALITY, VOI):
        held = [key for key in step if key in source]
        for key in step if held else ():
            if key in found:
                del found[key]
        for key in held:
            found[key] = source[key]


def _item(dataset: Dataset, keyword: str, index: int, name: str) -> Dataset | None:
    """An item of a sequence, None where there is none."""
    items = element(dataset, keyword, name)
    if items is None:
        return None
    if not isinstance(items, Sequence) or isinstance(items, (str, bytes)):
        raise ImcError(f"{name} has a damaged {keyword}; export it again")
    return items[index] if index < len(items) else None


def _first(elements: Dataset, keyword: str, name: str) -> float | None:
    """A number, the first of several."""
    found = numbers(elements, keyword, name)
    return found[0] if found else None
