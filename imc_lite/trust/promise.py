"""From which limit on the risk can it be promised that the answers which are given keep it?

Learn then test (Angelopoulos et al. 2021, arXiv 2110.01052): pictures that nothing was fitted on test, for one limit
after the other from the highest down, the hypothesis that more of the answers given are wrong than the limit allows.
The limits before the first that is not rejected all hold with probability 1 - `DOUBT`, over the draw of the pictures.
"""

from __future__ import annotations

import math

import numpy as np

DOUBT = 0.1
GRID = 100  # limits are tested in steps of one hundredth


def least_limit(confidence: np.ndarray, right: np.ndarray, pictures: np.ndarray) -> float:
    """The lowest limit that can be promised, 1 where none can.

    Args:
        confidence: float [A], of answers; an answer is given at a limit where 1 - confidence does not exceed it.
        right: float [A], 1 or 0.
        pictures: int [A], the picture that each is about; pictures weigh the same, and come in random order.
    """
    names = list(dict.fromkeys(pictures.tolist()))
    least = 1.0
    for step in range(GRID - 1, 0, -1):
        limit = step / GRID
        given = 1 - confidence <= limit
        # Of a picture: wrong answers that are given, and as much as is allowed for those that are not.
        lost = np.where(given, 1 - right, limit)
        means = np.array([lost[pictures == name].mean() for name in names])
        if evidence_below(means, limit) < 1 / DOUBT:
            break
        least = limit
    return least


def evidence_below(values: np.ndarray, mean: float) -> float:
    """Evidence that independent values in 0-1, float [N], come from a mean below `mean`.

    The most that a gambler has won who bets on that, starting with 1: by Ville's inequality it exceeds 1/d with
    probability at most d if the mean is no lower (Waudby-Smith & Ramdas 2024, arXiv 2010.09686, their stakes).
    """
    stake_most = 0.75 / (1 - mean)  # a value of 1 never costs everything
    capital = best = 1.0
    total, squares = 0.5, 0.25
    for count, value in enumerate(values, 1):
        spread = max(squares / count, 1e-6)
        stake = min(math.sqrt(2 * math.log(1 / DOUBT) / (spread * len(values))), stake_most)
        capital *= 1 - stake * (value - mean)
        best = max(best, capital)
        total += value
        squares += (value - total / (count + 1)) ** 2
    return best
