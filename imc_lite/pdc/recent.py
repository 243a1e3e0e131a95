"""What the last pictures were to the model, so that a second question about one of them does not encode it again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from typing import Generic, Protocol, TypeVar

import numpy as np

MOST_PICTURES = 16
MOST_BYTES = 64 << 20  # of tokens; the default model has 128 KB a picture, a Hugging Face model up to 20 MB


class Outcome(Protocol):
    """What became of a picture."""

    @property
    def nbytes(self) -> int:
        """Bytes that it takes to keep."""
        ...

    def again(self: T) -> T:
        """The same, as a question that comes later finds it: it took no time."""
        ...


T = TypeVar("T", bound=Outcome)


class RecentPictures(Generic[T]):
    """The outcome of `imc_lite.pdc.treat` for the pictures that were asked about last.

    It is for one model with its prototypes, known by what is in the picture, and kept in this process alone. The least
    recently used goes first. Several threads may use it at once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, T] = OrderedDict()

    def get(self, pixels: np.ndarray, treat: Callable[[np.ndarray], T]) -> T:
        """What `treat` makes of pixels, uint8 [H, W, 3], or made of the same ones before."""
        key = sha256(repr(pixels.shape).encode() + b"\n")
        key.update(np.ascontiguousarray(pixels).data)
        name = key.digest()
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
                return self._kept[name]
        # Not under the lock: others need not wait for an encoder.
        treated = treat(pixels)
        if treated.nbytes <= MOST_BYTES:
            self._keep(name, treated.again())
        return treated

    def _keep(self, name: bytes, treated: T) -> None:
        with self._lock:
            self._kept[name] = treated
            while len(self._kept) > MOST_PICTURES or sum(t.nbytes for t in self._kept.values()) > MOST_BYTES:
                self._kept.popitem(last=False)
