"""DICOM pictures: stored values in, uint8 RGB out, as a viewer would show them (DICOM PS3.3, C.7.6.3 and C.11).

What pydicom says about a file may quote its elements, and these name the patient; so its words are neither shown nor
logged, and our own lines speak of format, size and the elements' names alone.
"""

from __future__ import annotations

import numpy as np

from imc_lite.errors import ImcError
from imc_lite.images.decoder_output import no_warnings
from imc_lite.images.dicom import colour
from imc_lite.images.dicom.file import read
from imc_lite.images.dicom.frame import read_frame
from imc_lite.images.dicom.grey import to_grey
from imc_lite.images.dicom.image_pixel import frame_index, image_pixel
from imc_lite.images.dicom.windows import OWN, canonical


def load_dicom(
    data: bytes, name: str, window: str | None, frame: int | None, max_pixels: int
) -> tuple[np.ndarray, str | None]:
    """One frame of a DICOM file as uint8 [H, W, 3] RGB, and how it is shown.

    Grey values pass the file's rescale or modality table, then the window; MONOCHROME1 is inverted. Without a window
    of its own a grey picture is stretched from its darkest to its brightest value, padding left out. YBR and palette
    colours become RGB.

    Args:
        data: the file.
        name: what the file is called in errors.
        window: a preset, `full` or `CENTRE,WIDTH` in place of the file's first window or table, or three of them for
            red, green and blue; grey pictures only.
        frame: counted from 1, as DICOM does; the first by default.
        max_pixels: most pixels of a frame.

    Returns:
        The picture, and its window: one of `imc_lite.images.dicom.windows.canonical` or `OWN`; None for colours, which
        have none.

    Raises:
        ImcError: pydicom is not installed; not DICOM, damaged, without a picture, encoded in a way that no installed
            decoder reads, too large; an element that is missing or wrong; no such frame; a window that does not apply.
    """
    way = OWN if window is None else canonical(window)
    try:
        with no_warnings:
            picture, in_colour = _load(data, name, window, frame, max_pixels)
            return picture, None if in_colour else way
    except ImcError as error:
        raise error from None  # what it came from may quote the file
    except Exception as error:  # whatever slipped through may quote the file too
        raise ImcError(f"{name} cannot be shown ({type(error).__name__}); export it again") from None


def _load(data: bytes, name: str, window: str | None, frame: int | None, max_pixels: int) -> tuple[np.ndarray, bool]:
    dataset = read(data, name)
    pixel = image_pixel(dataset, name, max_pixels)
    index = frame_index(pixel, frame, name)
    in_colour = pixel.samples == 3 or pixel.photometric == "PALETTE COLOR"
    if in_colour and window is not None:
        raise ImcError(f"{name} is a colour picture and has no window; leave --window out")
    stored = read_frame(dataset, pixel, index, name)
    if pixel.samples == 3:
        return colour.from_samples(stored, name), True
    if in_colour:
        return colour.from_palette(dataset, stored.values, pixel.signed, name), True
    grey = to_grey(dataset, pixel, stored, index, window, name)
    return grey if grey.ndim == 3 else np.repeat(grey[..., None], 3, axis=2), False
