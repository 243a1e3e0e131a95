"""Pictures as an exported model's vision tower takes them, with numpy and Pillow."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageOps

from imc_lite.models.picture_shape import check_sides


def prepare(image: np.ndarray, spec: dict[str, Any]) -> np.ndarray:
    """The pixels that the tower takes of a picture.

    Args:
        image: uint8 [H, W, 3] RGB.
        spec: "picture" of a bundle's config.json, where
            pad is the side of the square that the picture is put into first, in pixels, or null;
            views holds a list of steps for each view, of which ["exact", h, w] resizes, ["shortest", n] and
                ["longest", n] resize so that this side has n pixels, ["crop", h, w] keeps the middle, and
                ["box", top, left, h, w] keeps that part;
            resample is the number of Pillow's filter for resizing;
            scale, mean and std make value * scale - mean, divided by std, of each channel;
            patches says how the one view is cut into Qwen-VL's patches (size in pixels, merge by merge of them in a
                block, repeat of them as if they were frames), or null.

    Returns:
        float32 [views, 3, h, w], or [patches, values].

    Raises:
        ImcError: the picture is too thin.
    """
    check_sides(image)
    picture = Image.fromarray(np.ascontiguousarray(image))
    if spec["pad"] is not None:
        picture = ImageOps.pad(picture, (spec["pad"], spec["pad"]))
    views = np.stack([_view(picture, steps, spec["resample"]) for steps in spec["views"]])
    values = (views.astype(np.float32) * np.float32(spec["scale"]) - np.float32(spec["mean"])) / np.float32(spec["std"])
    pixels = np.ascontiguousarray(values.transpose(0, 3, 1, 2), np.float32)
    return pixels if spec["patches"] is None else _patches(pixels[0], **spec["patches"])


def _view(picture: Image.Image, steps: list[list[Any]], resample: int) -> np.ndarray:
    for name, *sizes in steps:
        width, height = picture.size
        if name == "box" or name == "crop":
            *corner, h, w = sizes
            top, left = corner or ((height - h) // 2, (width - w) // 2)
            picture = picture.crop((left, top, left + w, top + h))
            continue
        if name == "shortest":
            short, long = sorted((height, width))
            other = int(sizes[0] * long / short)
            sizes = [sizes[0], other] if height <= width else [other, sizes[0]]
        elif name == "longest":
            sizes = _fitted(height, width, sizes[0])
        picture = picture.resize((sizes[1], sizes[0]), Image.Resampling(resample))
    return np.asarray(picture)


def _fitted(height: int, width: int, longest: int) -> list[int]:
    """Idefics3's size: the longer side as given, the shorter one made even."""
    aspect = width / height
    if width >= height:
        other = int(longest / aspect)
        return [max(1, other + other % 2), longest]
    other = int(longest * aspect)
    return [longest, max(1, other + other % 2)]


def _patches(pixels: np.ndarray, size: int, merge: int, repeat: int) -> np.ndarray:
    """Qwen-VL's rows: patches in blocks of `merge` by `merge`, a still picture repeated as if it were frames."""
    channels, height, width = pixels.shape
    rows, columns = height // size // merge, width // size // merge
    blocks = pixels.reshape(channels, rows, merge, size, columns, merge, size).transpose(1, 4, 2, 5, 0, 3, 6)
    frames = np.repeat(blocks[:, :, :, :, :, None], repeat, axis=5)
    return np.ascontiguousarray(frames.reshape(rows * columns * merge * merge, -1))
