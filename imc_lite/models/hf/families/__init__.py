"""The supported families of vision-language models, one module each; nothing else knows what sets one apart.

A new family is a module in this folder that holds `FAMILIES`, a `Family` for each `model_type` of transformers, and a
tiny model of it in `tests/tiny_models.py`. It is found here by itself, and the tests run on it as on the others.
Importing this package imports neither torch nor transformers.
"""

from __future__ import annotations

import importlib
import pkgutil

from imc_lite.errors import ImcError
from imc_lite.models.hf.families.base import Family

__all__ = ["FAMILIES", "Family", "family_of", "supported"]

# In this order messages and tables name them; a module that is not listed comes after these.
ORDER = ("idefics", "llava", "gemma", "qwen")


def found() -> dict[str, Family]:
    """What the modules of this folder hold, by `model_type`, in the order that is said above."""
    modules = {module.name for module in pkgutil.iter_modules(__path__)} - {"base"}
    names = [*ORDER, *sorted(modules - set(ORDER))]
    held = [importlib.import_module(f"{__name__}.{name}").FAMILIES for name in names]
    return {model_type: family for families in held for model_type, family in families.items()}


FAMILIES = found()
"""By `model_type`, as a checkpoint's config.json has it."""


def family_of(model_type: str) -> Family:
    """The family of a configuration's `model_type`.

    Raises:
        ImcError: not a supported one; those are named.
    """
    if model_type not in FAMILIES:
        raise ImcError(f"models of type {model_type!r} are not supported; {supported()}")
    return FAMILIES[model_type]


def supported() -> str:
    """The families in one phrase, for messages."""
    return "supported families: " + ", ".join(f.name for f in FAMILIES.values())
