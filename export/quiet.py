"""Keep exporters and quantizers from talking, and from changing the process that they run in."""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings
from collections.abc import Iterator

_LOCK = threading.Lock()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within, nothing is said of what is checked afterwards anyway; then everything is as it was.

    Python's warnings are held back; their filters belong to the process, so calls take turns, and meanwhile the
    warnings of other threads are not heard either. onnxruntime's quantizers write to the root logger, and where it has
    no handler they give it one and another level, for good; so it has one meanwhile that writes nothing.
    """
    mute = logging.NullHandler()
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.root.addHandler(mute)
        try:
            yield
        finally:
            logging.root.removeHandler(mute)
