"""Image noise of other projects in the benchmark: functions that somebody else wrote, from a file or a module."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

from imc_lite.errors import ImcError, shown

Generate = Callable[[np.ndarray, int, int], np.ndarray]
ENTRY = "generators"
_one_at_a_time = threading.Lock()  # somebody else's function may seed generators that belong to the whole process
NAME = re.compile(r"\w[\w .:+&-]{0,59}")  # a part's file and a table's cell are named after it


@dataclass(frozen=True)
class Generator:
    """One kind of image noise that is not ours.

    Attributes:
        name: as in the results.
        function: uint8 [H, W, 3], severity 1-5, seed -> uint8 of the same shape.
        source: SHA-256 of the file that it comes from.
    """

    name: str
    function: Generate
    source: str

    def __call__(self, picture: np.ndarray, severity: int, seed: int) -> np.ndarray:
        """A noisy copy.

        Raises:
            ImcError: the function fails, or gives something else than such a picture.
        """
        try:
            with _one_at_a_time:
                noisy = np.asarray(self.function(picture.copy(), severity, seed))
        except Exception as error:  # what somebody else's function raises is not known
            raise ImcError(
                f"the noise {self.name} failed at severity {severity} ({_in_words(error)}); mend it, or leave it out"
            ) from error
        if noisy.dtype != np.uint8 or noisy.shape != picture.shape:
            raise ImcError(
                f"the noise {self.name} made {noisy.dtype} {list(noisy.shape)} of uint8 {list(picture.shape)}; it "
                "has to give a picture of the same size and type"
            )
        return np.ascontiguousarray(noisy)


def load_generators(source: str, taken: tuple[str, ...]) -> tuple[Generator, ...]:
    """The image noises that a Python file or an installed module brings.

    Args:
        source: path of a file that ends in .py, or the name of a module. It is run. Its function `generators` gives
            names and functions that take a picture uint8 [H, W, 3], a severity and a seed.
        taken: names that they must not have.

    Raises:
        ImcError: no such file or module, it cannot be imported, or its `generators` is not as above.
    """
    module = _module(source)
    digest = hashlib.sha256(Path(module.__file__ or "").read_bytes() if module.__file__ else b"").hexdigest()
    entry = getattr(module, ENTRY, None)
    try:
        found = entry() if callable(entry) else None
    except Exception as error:  # what somebody else's function raises is not known
        raise ImcError(f"{ENTRY}() of {shown(source)} failed ({_in_words(error)}); mend it") from error
    if not isinstance(found, Mapping) or not found or not all(callable(f) for f in found.values()):
        raise ImcError(f"{shown(source)} has no function {ENTRY} that gives noises by their names; see docs/bench.md")
    files = Counter(str(name).replace(" ", "-") for name in found)
    for name in found:
        if not isinstance(name, str) or NAME.fullmatch(name) is None or name in (*taken, "clean"):
            raise ImcError(
                f"{shown(source)} calls a noise {shown(name)!r}; choose letters, digits, spaces and .:+&-, 60 at most, "
                "and no name of a noise of imc-lite"
            )
        if files[name.replace(" ", "-")] > 1:
            raise ImcError(
                f"{shown(source)} has two noises whose names differ from {shown(name)!r} by hyphens at most; rename one"
            )
    return tuple(Generator(name, function, digest) for name, function in found.items())


def _module(source: str) -> ModuleType:
    try:
        if not source.endswith(".py"):
            return importlib.import_module(source)
        if not Path(source).is_file():
            raise ImcError(f"{shown(source)} does not exist; name a Python file, or an installed module")
        spec = importlib.util.spec_from_file_location("imc_lite_noise_from", source)
        assert spec is not None and spec.loader is not None, "the name ends in .py"
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except ImcError:
        raise
    except Exception as error:  # it is somebody else's code
        raise ImcError(
            f"{shown(source)} cannot be imported ({_in_words(error)}); name a Python file, or an installed module"
        ) from error
    return module


def _in_words(error: Exception) -> str:
    """An error's kind and text."""
    return f"{type(error).__name__}: {shown(error)}"
