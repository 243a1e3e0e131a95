"""Carry noisy tokens back to clean ones: a few low-rank maps and a copy where none is wanted, in one launch."""

from imc_lite.kernels.calibrate.maps import MAX_RANK, LowRankMaps
from imc_lite.kernels.calibrate.op import calibrate

__all__ = ["MAX_RANK", "LowRankMaps", "calibrate"]
