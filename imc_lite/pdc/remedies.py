"""What is done about a noise that was found: restore the pixels, move the tokens by a low-rank map, or both.

Either is kept only where cross-fitting on clean pictures and their noisy copies showed a gain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# A judgement. Where up to 0.61 of the tokens' variance is expected to stay lost, the default model's answers come back
# to within 4.2 points of those to clean pictures; from 0.66 on they stay 6.3 to 12.8 points below
# (recipes/results/bench/results.json).
GRADABLE_LIMIT = 0.65


# Of the error that a noise causes, a remedy has to save so much. Set after the benchmark: the map for the strongest
# bias fields saved 6 % of their error, and it made answers worse where it was used for a field one step weaker.
WORTH = 0.1


@dataclass(frozen=True)
class LowRankMap:
    """Tokens of a noisy picture -> where those of the clean one are expected.

    x' = x + (x - m) V U + (c - m) with the means m of noisy and c of clean tokens; reduced-rank ridge regression
    (Mukherjee & Zhu 2011, https://doi.org/10.1002/sam.10138), fitted by `imc_lite.pdc.fit.low_rank_map`. The formula is
    that of `imc_lite.kernels.calibrate.reference.calibrate`, exported to ONNX for hosts without torch.

    Attributes:
        down: V, float32 [D, r].
        up: U, float32 [r, D].
        offset: m V, float32 [r].
        shift: c - m, float32 [D].
    """

    down: np.ndarray
    up: np.ndarray
    offset: np.ndarray
    shift: np.ndarray

    def apply(self, tokens: np.ndarray) -> np.ndarray:
        """Tokens [..., D] through the map, in numpy."""
        return tokens + (tokens @ self.down - self.offset) @ self.up + self.shift


@dataclass(frozen=True)
class Remedy:
    """What to do about one noise at one severity.

    Attributes:
        kind, severity: of the noise.
        restore: whether the pixels are restored and encoded again.
        map_index: which of the prototypes' low-rank maps follows; None where none helps.
        before: expected squared error of the tokens without the remedy, as a share of the variance of clean tokens.
        after: the same with it.
        farthest: of noisy pictures whose tokens, moved by the map, lie farther than this from clean pictures
            (`imc_lite.pdc.familiarity`), the tokens are left alone; None where there is no map, or none was set.
    """

    kind: str
    severity: int
    restore: bool
    map_index: int | None
    before: float
    after: float
    farthest: float | None = None

    @property
    def pays(self) -> bool:
        """Whether it saves enough to change what the language model sees."""
        return self.before - self.after >= WORTH * self.before

    @property
    def gradable(self) -> bool:
        """Whether enough of the picture is expected to reach the language model."""
        return self.after <= GRADABLE_LIMIT
