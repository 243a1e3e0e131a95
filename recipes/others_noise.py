"""Image noise that other projects wrote, for the benchmark: `imc-lite bench --noise-from recipes/others_noise.py`.

    pip install scikit-image torchio && pip install --no-deps imagecorruptions

scikit-image's `random_noise`, the functions of imagecorruptions (ImageNet-C's, Michaelis et al., arXiv 1907.07484), and
artefacts of TorchIO (arXiv 2003.04696), with their own defaults but for the strength where they have no severities.
Nothing of imc-lite is fitted to them, but some of its choices were made while looking at them on training pictures, and
three kinds were added because these had shown what was missing (docs/log.md). imagecorruptions' impulse noise cannot be
seeded with scikit-image of today: it draws other pixels each time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

Noise = Callable[[np.ndarray, int, int], np.ndarray]

# What they are called here, where the bank has the kind; the others have no right name but "unknown".
KINDS = {
    "skimage gaussian": "gaussian",
    "skimage speckle": "speckle",
    "skimage s&p": "impulse",
    "skimage pepper": "impulse",
    "imagecorruptions gaussian noise": "gaussian",
    "imagecorruptions impulse noise": "impulse",
    "imagecorruptions speckle noise": "speckle",
    "imagecorruptions motion blur": "motion_blur",
    "imagecorruptions contrast": "low_contrast",
    "imagecorruptions pixelate": "pixelation",
    "imagecorruptions defocus blur": "defocus",
    "imagecorruptions jpeg compression": "jpeg",
    "torchio noise": "gaussian",
    "torchio bias field": "bias_field",
    "torchio spike": "spike",
}
VARIANCE = {"gaussian": (0.01, 0.02, 0.04, 0.08, 0.14), "speckle": (0.03, 0.06, 0.12, 0.2, 0.35)}
AMOUNT = (0.03, 0.06, 0.1, 0.17, 0.27)


def _skimage(mode: str, picture: np.ndarray, severity: int, seed: int) -> np.ndarray:
    from skimage.util import random_noise

    how: dict[str, float] = {}
    if mode in VARIANCE:
        how["var"] = VARIANCE[mode][severity - 1]
    elif mode != "poisson":
        how["amount"] = AMOUNT[severity - 1]
    return as_bytes(255 * random_noise(picture, mode=mode, rng=seed, **how))


def corrupted(name: str, picture: np.ndarray, severity: int, seed: int) -> np.ndarray:
    """Under one of imagecorruptions' functions."""
    import imagecorruptions

    state = np.random.get_state()  # it draws from numpy's global generator
    np.random.seed(seed % 2**32)
    try:
        return as_bytes(imagecorruptions.corrupt(picture, severity=severity, corruption_name=name))
    finally:
        np.random.set_state(state)


def _torchio(artefact: str, picture: np.ndarray, severity: int, seed: int) -> np.ndarray:
    import torchio

    strength = severity / 5
    chosen = {
        "noise": lambda: torchio.RandomNoise(std=(0.4 * strength, 0.4 * strength)),
        "bias field": lambda: torchio.RandomBiasField(coefficients=strength),
        "ghosting": lambda: torchio.RandomGhosting(axes=(0, 1), intensity=(strength, strength)),
        "spike": lambda: torchio.RandomSpike(intensity=(strength, strength)),
    }
    return through_torchio(chosen[artefact](), picture, seed)


def through_torchio(transform: Callable[[Any], Any], picture: np.ndarray, seed: int) -> np.ndarray:
    """A picture through one of TorchIO's transforms, whose draws are seeded."""
    import torch
    import torchio

    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        # Channels of a colour picture suffer alike, as in one scan.
        planes = torch.from_numpy(np.moveaxis(picture, 2, 0)[..., None].astype(np.float32) / 255)
        noisy = transform(torchio.ScalarImage(tensor=planes)).data[..., 0].numpy()
    return as_bytes(255 * np.moveaxis(noisy, 0, 2))


def as_bytes(values: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)


def generators() -> dict[str, Noise]:
    """All of them by name: picture uint8 [H, W, 3], severity 1-5, seed -> such a picture."""
    skimage = ("gaussian", "speckle", "s&p", "pepper", "poisson")
    corruptions = (
        "gaussian_noise",
        "shot_noise",
        "impulse_noise",
        "speckle_noise",
        "defocus_blur",
        "motion_blur",
        "contrast",
        "brightness",
        "pixelate",
        "jpeg_compression",
    )
    found = {f"skimage {mode}": partial(_skimage, mode) for mode in skimage}
    found |= {f"imagecorruptions {n.replace('_', ' ')}": partial(corrupted, n) for n in corruptions}
    artefacts = ("noise", "bias field", "ghosting", "spike")
    return found | {f"torchio {name}": partial(_torchio, name) for name in artefacts}
