"""Seeded noise on pictures and questions, so that damage can be measured and repaired.

    from imc_lite import load_image
    from imc_lite.noise import apply_to_image, apply_to_text
    noisy = apply_to_image(load_image("chest.png"), "gaussian", severity=3, seed=0)
    garbled = apply_to_text("Is there a pneumothorax?", "typo", severity=3, seed=0)

- `apply_to_image`, `apply_to_text`: a noisy copy; `damage_text` also says where (`Damaged`, `Edit`)
- `apply_as_met`: a noisy copy whose size, strength, grain and shape are drawn
- `IMAGE_KINDS`, `TEXT_KINDS`: names of the kinds that prototypes and repairs are built for, and that the benchmark has;
  `FURTHER_KINDS`: of image noises that prototypes or remedies are built for beside these
- `IMAGE_NOISE`, `TEXT_NOISE`: every kind (`NoiseKind`), with its levels, source and function, and where to add one
- `BANK_VERSION`: changes with any level or function

docs/noise.md lists the kinds. Names are imported when first used, so that `import imc_lite.noise` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

_HOMES = {
    "BANK_VERSION": "registry",
    "FURTHER_KINDS": "image",
    "IMAGE_KINDS": "image",
    "IMAGE_NOISE": "image",
    "TEXT_KINDS": "text",
    "TEXT_NOISE": "text",
    "Damaged": "edits",
    "Edit": "edits",
    "NoiseKind": "registry",
    "apply_as_met": "as_met",
    "apply_to_image": "image",
    "apply_to_text": "text",
    "damage_text": "text",
}
__all__ = [
    "BANK_VERSION",
    "FURTHER_KINDS",
    "IMAGE_KINDS",
    "IMAGE_NOISE",
    "TEXT_KINDS",
    "TEXT_NOISE",
    "Damaged",
    "Edit",
    "NoiseKind",
    "apply_as_met",
    "apply_to_image",
    "apply_to_text",
    "damage_text",
]

if TYPE_CHECKING:
    from imc_lite.noise.as_met import apply_as_met
    from imc_lite.noise.edits import Damaged, Edit
    from imc_lite.noise.image import FURTHER_KINDS, IMAGE_KINDS, IMAGE_NOISE, apply_to_image
    from imc_lite.noise.registry import BANK_VERSION, NoiseKind
    from imc_lite.noise.text import TEXT_KINDS, TEXT_NOISE, apply_to_text, damage_text


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
