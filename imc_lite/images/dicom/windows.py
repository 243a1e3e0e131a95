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
OWN = "own"  # the file's own window or table, or the whole range where it has none; not to be asked for
# Three windows, for red, green and blue.
CHANNELS = {
    # MedGemma Technical Report, https://arxiv.org/abs/2507.05201, section 2.1: bone and lung, soft tissue, brain.
    "medgemma-ct": "-100,2250:40,350:40,80",
    # MedGemma 1.5, -1024 to 1024, -135 to 215 and 0 to 80 HU:
    # https://github.com/google-health/medgemma/blob/main/notebooks/high_dimensional_ct_hugging_face.ipynb
    "medgemma-1.5-ct": "0,2048:40,350:40,80",
}


def channel_windows(window: str) -> tuple[str, ...]:
    """The windows that `window` asks for: one that shows grey, or three with ":" between for red, green and blue.

    Raises:
        ImcError: it is none of these.
    """
    parts = tuple(CHANNELS.get(window, window).split(":"))
    if len(parts) not in (1, 3):
        raise ImcError(f"{shown(window, 40)!r} is {len(parts)} windows; give one, or three for red, green and blue")
    for part in parts:
        centre_and_width(part)
    return parts


def canonical(window: str) -> str:
    """One spelling for all that show the same: `full` or CENTRE,WIDTH, with ":" between three.

    Raises:
        ImcError: it is no window.
    """
    found = map(centre_and_width, channel_windows(window))
    return ":".join(WHOLE if one is None else ",".join(f"{number:.15g}" for number in one) for one in found)


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
        choices = ", ".join([*WINDOWS, *CHANNELS, WHOLE])
        raise ImcError(
            f"{shown(window, 40)!r} is no window; give {choices}, or CENTRE,WIDTH in the picture's own units"
        )
    return float(parts[1]), float(parts[2])
