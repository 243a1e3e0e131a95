"""The one preprocessing of the default model's encoder."""

from __future__ import annotations

import numpy as np
from PIL import Image

SIDE = 320


def preprocess(image: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] RGB of any size -> float32 [3, 320, 320].

    Centred on a black square, resized with bicubic interpolation, (x - 127) / 128 (EfficientNet-Lite's own
    scaling, https://github.com/tensorflow/tpu, models/official/efficientnet/lite).
    """
    picture = Image.fromarray(image)
    longest = max(picture.size)
    # Shrink first, pad after: a square of a huge panorama's long side need never exist.
    size = [max(1, round(edge * SIDE / longest)) for edge in picture.size]
    small = picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    square = Image.new("RGB", (SIDE, SIDE))
    square.paste(small, ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    return (np.asarray(square, np.float32).transpose(2, 0, 1) - 127.0) / 128.0
