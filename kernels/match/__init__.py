"""Which noise do a picture's tokens carry? Distances to whitened noise prototypes, in one launch."""

from imc_lite.kernels.match.op import Match, match, match_stats
from imc_lite.kernels.match.prototypes import MAX_PROTOTYPES, WhitenedPrototypes

__all__ = ["MAX_PROTOTYPES", "Match", "WhitenedPrototypes", "match", "match_stats"]
