"""Restorers of well-kept libraries beside ours: what each leaves of the tokens' error, and its time.

    pip install scikit-image opencv-python-headless SimpleITK && pip install --no-deps imagecorruptions
    python recipes/measure_restorers.py --data DATA --bundle BUNDLE -o recipes/results/restorers.json

Training pictures, a few of each set, under noise as it is met (`imc_lite.noise.apply_as_met`) and under noise that
other projects wrote. The error is the mean squared distance of the encoder's tokens from those of the clean picture, as
a share of the clean tokens' variance; no map follows. Libraries are told how strong the noise is by their own
estimator, with the settings that their documentation suggests. Intervals: 95 % percentile bootstrap over pictures, of
the difference from ours on the same views; one thread.
"""

from __future__ import annotations

import argparse
import json
import time
import zlib
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
from measure_generality import some_of_each
from others_noise import generators
from sets import load_sets
from tqdm import tqdm

from imc_lite.bench.stats import Bootstrap, percentiles
from imc_lite.images.load import load_image
from imc_lite.images.resize import resize_picture, size_within
from imc_lite.models.default.onnx import OrtMLLM
from imc_lite.noise import apply_as_met
from imc_lite.noise.planes import REFERENCE
from imc_lite.pdc.restorers import restore

Restorer = Callable[[np.ndarray], np.ndarray]

SEVERITIES = 2, 4
OURS = "imc-lite"
# Of the kinds that are restored, noise that others wrote.
OTHERS = {
    "gaussian": ("skimage gaussian", "imagecorruptions gaussian noise"),
    "speckle": ("skimage speckle", "imagecorruptions speckle noise"),
    "impulse": ("skimage s&p", "skimage pepper"),
    "low_contrast": ("imagecorruptions contrast",),
    "bias_field": (),
}
LEAST = 1 / 255  # of a pixel, whose logarithm is taken


def small(image: np.ndarray) -> np.ndarray:
    """float64 [h, w, 3] or [h, w] within 0-1, at the size that encoders see."""
    shown = resize_picture(image, size_within(image.shape, REFERENCE)) / 255
    return shown[..., 0] if (shown == shown[..., :1]).all() else shown


def as_picture(values: np.ndarray) -> np.ndarray:
    """uint8 [h, w, 3]"""
    planes = values[..., None] if values.ndim == 2 else values
    picture = np.rint(255 * np.clip(planes, 0, 1)).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(picture, (*picture.shape[:2], 3)))


def smoothed(method: Callable[[np.ndarray, float], np.ndarray], image: np.ndarray) -> np.ndarray:
    """By a method for additive noise, told how strong it is."""
    from skimage.restoration import estimate_sigma

    values = small(image)
    sigma = estimate_sigma(values, average_sigmas=True, channel_axis=_axis(values))
    return as_picture(method(values, float(sigma)))


def smoothed_logarithm(method: Callable[[np.ndarray, float], np.ndarray], image: np.ndarray) -> np.ndarray:
    """By a method for additive noise, which speckle is on the logarithm."""
    from skimage.restoration import estimate_sigma

    values = np.log(np.maximum(small(image), LEAST))
    sigma = estimate_sigma(values, average_sigmas=True, channel_axis=_axis(values))
    low, width = values.min(), max(np.ptp(values), 1e-6)
    return as_picture(np.exp(method((values - low) / width, float(sigma / width)) * width + low))


def _axis(values: np.ndarray) -> int | None:
    return -1 if values.ndim == 3 else None


def wavelets(values: np.ndarray, sigma: float) -> np.ndarray:
    """scikit-image over PyWavelets, BayesShrink."""
    from skimage.restoration import denoise_wavelet

    return denoise_wavelet(values, sigma=sigma, method="BayesShrink", rescale_sigma=True, channel_axis=_axis(values))


def total_variation(values: np.ndarray, sigma: float) -> np.ndarray:
    """scikit-image, Chambolle."""
    from skimage.restoration import denoise_tv_chambolle

    return denoise_tv_chambolle(values, weight=max(1.2 * sigma, 1e-3), channel_axis=_axis(values))


def non_local_means(values: np.ndarray, sigma: float) -> np.ndarray:
    """scikit-image, its fast mode."""
    from skimage.restoration import denoise_nl_means

    how = {"patch_size": 5, "patch_distance": 6, "fast_mode": True, "channel_axis": _axis(values)}
    return denoise_nl_means(values, h=0.8 * sigma, sigma=sigma, **how)


def opencv_non_local_means(values: np.ndarray, sigma: float) -> np.ndarray:
    """OpenCV."""
    import cv2

    picture = as_picture(values)
    return cv2.fastNlMeansDenoisingColored(picture, None, 255 * sigma, 255 * sigma, 7, 21) / 255


def median(side: int, image: np.ndarray) -> np.ndarray:
    """OpenCV, at the picture's own size."""
    import cv2

    return cv2.medianBlur(image, side)


def rescaled(image: np.ndarray) -> np.ndarray:
    """scikit-image, from the 2nd to the 98th percentile."""
    from skimage.exposure import rescale_intensity

    values = small(image)
    return as_picture(rescale_intensity(values, in_range=tuple(np.percentile(values, (2, 98))), out_range=(0, 1)))


def adaptive(image: np.ndarray) -> np.ndarray:
    """scikit-image, CLAHE."""
    from skimage.exposure import equalize_adapthist

    return as_picture(equalize_adapthist(small(image)))


def n4(image: np.ndarray) -> np.ndarray:
    """SimpleITK, N4 on a quarter of the size, as its example does."""
    import SimpleITK as sitk

    values = small(image)
    grey = sitk.GetImageFromArray((values if values.ndim == 2 else values.mean(2)).astype(np.float32) + 1e-3)
    filter_ = sitk.N4BiasFieldCorrectionImageFilter()
    mask = sitk.OtsuThreshold(grey, 0, 1, 200)
    filter_.Execute(sitk.Shrink(grey, [4, 4]), sitk.Shrink(mask, [4, 4]))
    field = np.exp(sitk.GetArrayFromImage(filter_.GetLogBiasFieldAsImage(grey)))
    return as_picture(values / (field if values.ndim == 2 else field[..., None]))


SMOOTHERS = {
    "scikit-image wavelets": wavelets,
    "scikit-image total variation": total_variation,
    "scikit-image non-local means": non_local_means,
    "OpenCV non-local means": opencv_non_local_means,
}
LIBRARIES: dict[str, dict[str, Restorer]] = {
    "gaussian": {name: partial(smoothed, method) for name, method in SMOOTHERS.items()},
    "speckle": {f"{name}, of the logarithm": partial(smoothed_logarithm, m) for name, m in SMOOTHERS.items()},
    "impulse": {f"OpenCV median {side} x {side}": partial(median, side) for side in (3, 5)},
    "low_contrast": {"scikit-image percentiles": rescaled, "scikit-image CLAHE": adaptive},
    "bias_field": {"SimpleITK N4": n4},
}


def views(image: np.ndarray, name: str, kind: str, seed: int) -> list[tuple[np.ndarray, int]]:
    """Noisy copies of a picture, with their severities."""
    found = [(apply_as_met(image, kind, s, seed + zlib.crc32(name.encode())), s) for s in SEVERITIES]
    rng = np.random.default_rng([seed, zlib.crc32(f"{kind} {name}".encode())])
    for other in OTHERS[kind]:
        severity = int(rng.integers(2, 6))
        found.append((generators()[other](image, severity, int(rng.integers(2**31))), severity))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with all sets")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=4, help="pictures of each set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    import cv2
    import SimpleITK as sitk

    cv2.setNumThreads(1)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    model = OrtMLLM(args.bundle)
    cases = some_of_each(load_sets(args.data, "train"), args.limit)
    pictures = [load_image(case.path) for case in cases]
    clean = np.stack([model.perceive(image).tokens for image in pictures])
    variance = float(clean.var((0, 1)).mean())
    bootstrap = Bootstrap(len(cases), args.seed)
    found = {}
    for kind, libraries in LIBRARIES.items():
        ways: dict[str, Restorer | None] = {"nothing": None, **libraries}
        errors: dict[str, list[float]] = defaultdict(list)
        spent: dict[str, list[float]] = defaultdict(list)
        owners = []
        for i, (case, image) in enumerate(zip(tqdm(cases, desc=kind, unit="picture"), pictures, strict=True)):
            for noisy, severity in views(image, case.name, kind, args.seed):
                owners.append(i)
                mine = {OURS: partial(restore, kind=kind, severity=severity)} if kind != "bias_field" else {}
                for name, restorer in {**ways, **mine}.items():
                    began = time.perf_counter()
                    restored = noisy if restorer is None else restorer(noisy)
                    spent[name].append(time.perf_counter() - began)
                    errors[name].append(float(((model.perceive(restored).tokens - clean[i]) ** 2).mean()) / variance)
        against = np.array(errors[OURS if OURS in errors else "nothing"])
        found[kind] = {
            name: {
                "error": round(float(np.mean(values)), 4),
                "beyond_ours_95ci": percentiles(bootstrap.means(np.array(values) - against, np.array(owners))),
                "milliseconds": round(1000 * float(np.median(spent[name])), 1),
            }
            for name, values in errors.items()
        }
    facts = {
        "command": "python recipes/measure_restorers.py --data DATA --bundle BUNDLE -o recipes/results/restorers.json",
        "seed": args.seed,
        "pictures": len(cases),
        "versions": {
            name: version(name) for name in ("scikit-image", "opencv-python-headless", "PyWavelets", "SimpleITK")
        },
        "kinds": found,
    }
    args.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
