"""All checks, in the order in which one depends on another."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

from imc_lite.doctor.check import Check, problem

# Module and function: each is imported when its turn comes, since a package that is broken must not hide the others.
CHECKS = (
    ("packages", "check_python"),
    ("packages", "check_packages"),
    ("packages", "check_extras"),
    ("hardware", "check_cpu"),
    ("hardware", "check_memory"),
    ("hardware", "check_gpu"),
    ("runtime", "check_onnxruntime"),
    ("pictures", "check_pictures"),
    ("pictures", "check_dicom"),
    ("model", "check_cache"),
    ("model", "check_model"),
)
DEEP = (("runtime", "check_torch"),)


def examine(*, deep: bool = False) -> Iterator[Check]:
    """Each finding as soon as it is made. Nothing is fetched, built or left behind.

    Args:
        deep: also import torch and have it compute something, which takes seconds.
    """
    for module, function in (*CHECKS, *(DEEP if deep else ())):
        try:
            found = getattr(import_module(f"imc_lite.doctor.{module}"), function)()
            yield from found if isinstance(found, list) else [found]
        except Exception as error:  # what is broken may break its check; its words may name the owner's folders
            name = function.removeprefix("check_")
            lost = f" of {error.name}" if isinstance(error, ImportError) and error.name else ""
            yield problem(name, f"the check itself failed ({type(error).__name__}{lost})", "pip install imc-lite again")
