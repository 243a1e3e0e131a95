"""Tables of the kinds of noise, from the registry that the package itself uses."""

from __future__ import annotations

from imc_lite.noise import IMAGE_NOISE, TEXT_NOISE
from imc_lite.noise.registry import NoiseKind


def image_noises() -> str:
    return _table(IMAGE_NOISE.kinds("bank"))


def further_image_noises() -> str:
    return _table(IMAGE_NOISE.kinds("further"))


def unseen_image_noises() -> str:
    return _table(IMAGE_NOISE.kinds("unseen"))


def artefacts() -> str:
    return _table(IMAGE_NOISE.kinds("out-of-distribution"))


def text_noises() -> str:
    return _table(TEXT_NOISE.kinds("bank"))


def unseen_text_noises() -> str:
    return _table(TEXT_NOISE.kinds("unseen"))


def _table(kinds: tuple[NoiseKind, ...]) -> str:
    lines = ["| kind | severity 1, 2, … | of what | source | here |", "|---|---|---|---|---|"]
    for kind in kinds:
        levels = " ".join(f"{level:g}" for level in kind.levels)
        lines.append(f"| `{kind.name}` | {levels} | {kind.measure} | {kind.source} | {kind.differs} |")
    return "\n".join(lines)
