"""PDC, Perturbation-aware Denoising Calibration: which noise a picture carries, and what makes up for it.

    from pathlib import Path
    from imc_lite import IMC, load_image
    from imc_lite.pdc import build_prototypes, find_images, load_prototypes
    model = IMC.from_pretrained().model
    build_prototypes(model, find_images(Path("clean/"))).save(Path("ours.safetensors"))
    prototypes = load_prototypes(Path("ours.safetensors"), model.identity)
    noise, in_distribution = prototypes.matcher.match(model.perceive(load_image("scan.png")).stats)

- `find_images`, `build_prototypes`: fit prototypes to a folder of clean pictures; `Prototypes.save` writes them
- `load_prototypes`: `Prototypes` from a file, checked against the model
- `Matcher`: which noise, how strong, and whether the picture is like those that the prototypes were fitted to
- `Remedy`, `restore`, `LowRankMap`: what is done about it, to the pixels and to the tokens

Names are imported when first used, so that `import imc_lite.pdc` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

_HOMES = {
    "LowRankMap": "remedies",
    "Matcher": "matcher",
    "Prototypes": "prototypes",
    "Remedy": "remedies",
    "build_prototypes": "fit.build",
    "find_images": "fit.build",
    "load_prototypes": "prototypes",
    "restore": "restorers",
}
__all__ = [
    "LowRankMap",
    "Matcher",
    "Prototypes",
    "Remedy",
    "build_prototypes",
    "find_images",
    "load_prototypes",
    "restore",
]

if TYPE_CHECKING:
    from imc_lite.pdc.fit.build import build_prototypes, find_images
    from imc_lite.pdc.matcher import Matcher
    from imc_lite.pdc.prototypes import Prototypes, load_prototypes
    from imc_lite.pdc.remedies import LowRankMap, Remedy
    from imc_lite.pdc.restorers import restore


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
