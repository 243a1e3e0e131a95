"""Pictures as data URIs, for servers that are shown pixels."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from imc_lite.images.decoder_output import no_warnings
from imc_lite.images.grey import is_grey
from imc_lite.images.load import LoadedImage

READ_ANYWHERE = ("JPEG", "PNG", "WEBP")
EIGHT_BITS = ("1", "L", "LA", "P", "RGB", "RGBA")  # Pillow's modes


def picture_uri(picture: LoadedImage) -> str:
    """The picture's file as it is where every server would read the pixels that we read, else those as a PNG.

    They would not of a DICOM, TIFF or BMP file, of more than 8 bits a sample, and where a camera's rotation or
    transparency, which servers treat each in their own way, make a difference.
    """
    if picture.file is not None:
        with no_warnings, Image.open(io.BytesIO(picture.file)) as plain:
            known = plain.format in READ_ANYWHERE and plain.mode in EIGHT_BITS
            if known and np.array_equal(np.asarray(plain.convert("RGB")), picture.pixels):
                return file_uri(picture.file)
    return data_uri(picture.pixels)


def data_uri(pixels: np.ndarray) -> str:
    """Pixels, uint8 [H, W, 3], as a PNG in a data URI; grey ones as a grey PNG."""
    grey = is_grey(pixels)
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if grey else pixels).save(buffer, "PNG", compress_level=3)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def file_uri(data: bytes) -> str:
    """A picture's file in a data URI, as it is.

    Args:
        data: that Pillow has read before.
    """
    kind = Image.open(io.BytesIO(data)).get_format_mimetype()
    return f"data:{kind or 'application/octet-stream'};base64,{base64.b64encode(data).decode()}"
