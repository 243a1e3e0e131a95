"""Image noise of other projects by which nothing here was chosen: looked at once, after everything was fixed.

    pip install scikit-image torchio && pip install --no-deps imagecorruptions

For `measure_unseen.py`, and for `imc-lite bench --noise-from`. `others_noise.py` has the generators that choices were
made with.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from others_noise import Noise, as_bytes, corrupted, through_torchio


def _local_variance(picture: np.ndarray, severity: int, seed: int) -> np.ndarray:
    """Gaussian noise whose variance follows the picture's brightness."""
    from skimage.util import random_noise

    variance = (0.02, 0.04, 0.08, 0.16, 0.3)[severity - 1] * (picture / 255) ** 2 + 1e-6
    return as_bytes(255 * random_noise(picture, mode="localvar", local_vars=variance, rng=seed))


def _torchio(make: Callable[[float], Any], picture: np.ndarray, severity: int, seed: int) -> np.ndarray:
    return through_torchio(make(severity / 5), picture, seed)


def _gamma(strength: float) -> Any:
    import torchio

    return torchio.RandomGamma(log_gamma=(strength, strength))


def _blur(strength: float) -> Any:
    import torchio

    return torchio.RandomBlur(std=(4 * strength, 4 * strength))


def _coarse_lines(strength: float) -> Any:
    import torchio

    times = 1 + 5 * strength
    return torchio.RandomAnisotropy(axes=(0, 1), downsampling=(times, times))


def generators() -> dict[str, Noise]:
    """All of them by name: picture uint8 [H, W, 3], severity 1-5, seed -> such a picture."""
    names = ("zoom_blur", "elastic_transform", "saturate", "spatter", "frost")
    found: dict[str, Noise] = {f"imagecorruptions {n.replace('_', ' ')}": partial(corrupted, n) for n in names}
    found["skimage localvar"] = _local_variance
    made = {"blur": _blur, "gamma": _gamma, "anisotropy": _coarse_lines}
    return found | {f"torchio {name}": partial(_torchio, make) for name, make in made.items()}
