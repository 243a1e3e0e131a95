"""The one preprocessing of the default model's encoder."""

from __future__ import annotations

import numpy as np

from imc_lite.images.resize import resize_picture, size_filling
from imc_lite.models.default.spec import ENCODER


def preprocess(image: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] RGB of any size -> float32 [3, 320, 320].

    Centred on a black square, resized with bicubic interpolation, (x - 127) / 128 (EfficientNet-Lite's own
    scaling, https://github.com/tensorflow/tpu, models/official/efficientnet/lite).
    """
    # Shrink first, pad after: a square of a huge panorama's long side need never exist.
    height, width = size_filling(image.shape, ENCODER.side)
    top, left = (ENCODER.side - height) // 2, (ENCODER.side - width) // 2
    square = np.zeros((ENCODER.side, ENCODER.side, 3), np.float32)
    square[top : top + height, left : left + width] = resize_picture(image, (height, width))
    return (square.transpose(2, 0, 1) - ENCODER.mean) / ENCODER.std
