"""The windows that a user may ask for in place of the file's own."""

from __future__ import annotations

import re

from imc_lite.errors import ImcError, shown

# Centre and width in Hounsfield units, as CT consoles offer them (https://radiopaedia.org/articles/windowing-ct).
WINDOWS = {
    "bone": (400.0, 1800.0),
    "brain": (40.0, 80.0),
    "lung": (-600.0, 1500.0),
    "mediastinum": (50.0, 350.0),
    "soft-tissue": (50.0, 400.0),
}
WHOLE = "full"  # from the darkest value to the brightest


def centre_and_width(window: str) -> tuple[float, float] | None:
    """What `window` means: a preset of `WINDOWS` or `CENTRE,WIDTH`; None for `full`.

    Raises:
        ImcError: it is none of these.
    """
    if window == WHOLE:
        return None
    if window in WINDOWS:
        return WINDOWS[window]
    parts = re.fullmatch(r"\s*(-?\d{1,9}(?:\.\d{1,9})?)\s*,\s*(\d{1,9}(?:\.\d{1,9})?)\s*", window)
    if parts is None or float(parts[2]) <= 0:
        choices = ", ".join([*WINDOWS, WHOLE])
        raise ImcError(
            f"{shown(window, 40)!r} is no window; give {choices}, or CENTRE,WIDTH in the picture's own units"
        )
    return float(parts[1]), float(parts[2])
