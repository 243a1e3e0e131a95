"""Whether the arrays of a prototypes' file belong together."""

from __future__ import annotations

import numpy as np

from imc_lite.pdc.familiarity import Familiarity
from imc_lite.pdc.matcher import Matcher


def check_fit(matcher: Matcher, maps: dict[str, np.ndarray], clean: Familiarity | None) -> None:
    """Refuse arrays that do not belong together, before a picture is judged by them.

    Raises:
        ValueError: they do not, or hold what is no number.
    """
    (count, directions), width = matcher.points.shape, len(matcher.mean)
    wanted = {"mean": (width,), "whiten": (width, directions), "bias": (count,), "precision": (width,)}
    fits = all(getattr(matcher, name).shape == shape for name, shape in wanted.items())
    fits = fits and matcher.reconstruct.shape == (directions, width)
    fits = fits and len(matcher.kinds) == len(matcher.severities) == count and "clean" in matcher.kinds
    fits = fits and all(type(severity) is int for severity in matcher.severities)
    count, columns, rank = maps["down"].shape
    fits = fits and maps["up"].shape == (count, rank, columns) and maps["offset"].shape == (count, rank)
    fits = fits and maps["shift"].shape == (count, columns)
    limits = np.array([matcher.unknown_limit, matcher.in_distribution_limit], float)
    numbers = [getattr(matcher, name) for name in (*wanted, "points", "reconstruct")] + [limits, *maps.values()]
    for found in (matcher.bias_field, matcher.strange):
        if found is not None:
            many, columns = found.landmarks.shape
            fits = fits and found.centre.shape == (width,) and found.project.shape == (width, columns)
            fits = fits and found.dual.shape == (many,) and found.offset.shape == (1,)
            numbers += [found.centre, found.project, found.landmarks, found.dual, found.offset]
    if clean is not None:
        fits = fits and clean.centres.shape[1] == len(clean.directions)
        numbers += [clean.centres, clean.directions]
    if not fits or not all(np.isfinite(array).all() for array in numbers):
        raise ValueError("arrays that do not fit")
