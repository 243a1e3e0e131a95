"""PDC, Perturbation-aware Denoising Calibration: which noise a picture carries, and what makes up for it.

    from pathlib import Path
    from imc_lite import IMC, load_image
    from imc_lite.pdc import build_prototypes, find_images, load_prototypes, treat_picture
    model = IMC.from_pretrained().model
    build_prototypes(model, find_images(Path("clean/"))).save(Path("ours.safetensors"))
    prototypes = load_prototypes(Path("ours.safetensors"), model.identity)
    treated = treat_picture(model, prototypes, load_image("scan.png"))
    print(treated.report.noise, model.generate("Is there a fracture?", treated.tokens).text)

- `find_images`, `build_prototypes`: fit prototypes to a folder of clean pictures; `Prototypes.save` writes them
- `load_prototypes`: `Prototypes` from a file, checked against the model
- `Matcher`: which noise, how strong, and whether the picture is like those that the prototypes were fitted to
- `Remedy`, `restore`, `LowRankMap`: what is done about it, to the pixels and to the tokens
- `familiarity.Familiarity`: how far a picture's tokens lie from those of clean pictures of known kinds
- `treat_picture`: all of that for one picture, with a report (`Treated`)

Names are imported when first used, so that `import imc_lite.pdc` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

_HOMES = {
    "LowRankMap": "remedies",
    "Matcher": "matcher",
    "Prototypes": "prototypes",
    "Remedy": "remedies",
    "Treated": "treat",
    "build_prototypes": "fit.build",
    "find_images": "fit.build",
    "load_prototypes": "prototypes",
    "restore": "restorers",
    "treat_picture": "treat",
}
__all__ = [
    "LowRankMap",
    "Matcher",
    "Prototypes",
    "Remedy",
    "Treated",
    "build_prototypes",
    "find_images",
    "load_prototypes",
    "restore",
    "treat_picture",
]

if TYPE_CHECKING:
    from imc_lite.pdc.fit.build import build_prototypes, find_images
    from imc_lite.pdc.matcher import Matcher
    from imc_lite.pdc.prototypes import Prototypes, load_prototypes
    from imc_lite.pdc.remedies import LowRankMap, Remedy
    from imc_lite.pdc.restorers import restore
    from imc_lite.pdc.treat import Treated, treat_picture


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
