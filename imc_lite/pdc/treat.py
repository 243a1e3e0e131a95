"""What one picture goes through: match, restore, calibrate, report."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from imc_lite.models.base import MLLM, Perception
from imc_lite.pdc.full_size import restore_full_size
from imc_lite.pdc.impulse import impulse_strength
from imc_lite.pdc.prototypes import Prototypes
from imc_lite.pdc.restorers import restore
from imc_lite.pdc.waves import spike_strength
from imc_lite.results import ImageReport, Noise

SURE = 0.99  # of what the pixels show


@dataclass(frozen=True)
class Treated:
    """What the language model is shown, and what was done to get there.

    Attributes:
        tokens: float32 [N, D].
        report: the verdict, and what was done about it.
        restored: uint8 [h, w, 3], the picture as it was encoded the second time; None where its pixels were left alone.
        perceive_s: seconds of the first encoder pass.
        calibrate_s: seconds of everything after it.
    """

    tokens: np.ndarray
    report: ImageReport
    restored: np.ndarray | None
    perceive_s: float
    calibrate_s: float

    @property
    def nbytes(self) -> int:
        """Of the tokens."""
        return self.tokens.nbytes

    def again(self) -> Treated:
        """As the next question about the picture finds it: without the restored picture, and in no time."""
        return replace(self, restored=None, perceive_s=0.0, calibrate_s=0.0)


def treat_picture(
    model: MLLM, prototypes: Prototypes | None, pixels: np.ndarray, perception: Perception | None = None
) -> Treated:
    """The encoder's pass and, on a noisy picture, what makes up for the noise.

    Args:
        model: encodes.
        prototypes: of its encoder; without them noise is neither looked for nor calibrated.
        pixels: uint8 [H, W, 3] RGB.
        perception: of these pixels, where it is known already.
    """
    began = time.perf_counter()
    perception = perception or model.perceive(pixels)
    perceived = time.perf_counter()
    tokens, report, restored = perception.tokens, ImageReport(path=None), None
    if prototypes is not None:
        look = name_noise(model, prototypes, pixels, perception.stats)
        remedy = prototypes.remedy(look.noise.kind, look.noise.severity)
        report, restored = judge(prototypes, look), None
        if remedy is not None and remedy.restore:
            restored = restore(pixels, remedy.kind, remedy.severity) if look.restored is None else look.restored
            tokens = model.perceive(restored).tokens if look.again is None else look.again.tokens
            report = replace(report, restored=True)
        if remedy is not None and look.in_distribution and (fitted := prototypes.low_rank_map(remedy)) is not None:
            moved = model.calibrate(tokens, fitted)
            if prototypes.leads_back(remedy, moved):
                tokens, report = moved, replace(report, calibrated=True)
            else:
                lost = "calibrated, it is like no clean picture that the prototypes know; its features are left alone"
                report = replace(report, gradable=None, reason=f"{look.noise.kind}; {lost}")
    return Treated(tokens, report, restored, perceived - began, time.perf_counter() - perceived)


@dataclass(frozen=True)
class RestoredPicture:
    """A picture for a model that is shown pixels, and not the tokens of this encoder.

    Attributes:
        report: the verdict, and what was done about it.
        pixels: uint8 [H, W, 3], of the picture's own size; None where they were left alone.
        perceive_s: seconds of the encoder's pass.
        restore_s: seconds of everything after it.
    """

    report: ImageReport
    pixels: np.ndarray | None
    perceive_s: float
    restore_s: float

    @property
    def nbytes(self) -> int:
        """Of the pixels."""
        return 0 if self.pixels is None else self.pixels.nbytes

    def again(self) -> RestoredPicture:
        """As the next question about the picture finds it: in no time."""
        return replace(self, perceive_s=0.0, restore_s=0.0)


def restore_picture(model: MLLM, prototypes: Prototypes, pixels: np.ndarray) -> RestoredPicture:
    """The verdict on a picture, uint8 [H, W, 3] RGB, which is restored where `treat_picture` would restore it."""
    began = time.perf_counter()
    stats = model.perceive(pixels).stats
    perceived = time.perf_counter()
    look = name_noise(model, prototypes, pixels, stats)
    remedy = prototypes.remedy(look.noise.kind, look.noise.severity)
    report, restored = judge(prototypes, look), None
    if remedy is not None and remedy.restore:
        restored, report = restore_full_size(pixels, remedy.kind, remedy.severity), replace(report, restored=True)
    return RestoredPicture(report, restored, perceived - began, time.perf_counter() - perceived)


def inspect(model: MLLM, prototypes: Prototypes, pixels: np.ndarray) -> ImageReport:
    """The verdict on a picture, uint8 [H, W, 3] RGB, from one encoder pass (two where waves cross it); nothing is done
    about it."""
    return examine(model, prototypes, pixels)[0]


def examine(model: MLLM, prototypes: Prototypes, pixels: np.ndarray) -> tuple[ImageReport, float]:
    """Like `inspect`, and with it the out-of-distribution score that the verdict rests on."""
    look = name_noise(model, prototypes, pixels, model.perceive(pixels).stats)
    return judge(prototypes, look), look.score


@dataclass(frozen=True)
class Look:
    """Which noise a picture carries.

    Attributes:
        noise: the verdict.
        in_distribution: whether the picture is like those that the prototypes were fitted to.
        score: how far it lies from them, the out-of-distribution score.
        behind: what is seen behind the waves of a spike, which hide it from the encoder; None without waves.
        restored: the picture without its waves, uint8 [h, w, 3], where there were any; `again`: the encoder's pass over
            that.
    """

    noise: Noise
    in_distribution: bool
    score: float
    behind: Noise | None = None
    restored: np.ndarray | None = None
    again: Perception | None = None


def name_noise(model: MLLM, prototypes: Prototypes, pixels: np.ndarray, stats: np.ndarray) -> Look:
    """Which noise a picture carries, by its pixels and by the encoder's pass.

    Args:
        model: computes the evidence.
        prototypes: of its encoder.
        pixels: uint8 [H, W, 3] RGB.
        stats: float32 [S], of the encoder's pass over them.
    """
    if strength := spike_strength(pixels):
        restored = restore(pixels, "spike", round(strength))
        again = model.perceive(restored)
        behind, in_distribution, score = prototypes.matcher.examine(again.stats, model.evidence)
        return Look(Noise("spike", round(strength), SURE, strength), in_distribution, score, behind, restored, again)
    noise, in_distribution, score = prototypes.matcher.examine(stats, model.evidence)
    if noise.kind not in ("clean", "impulse") and (strength := impulse_strength(pixels)):
        noise = Noise("impulse", round(strength), SURE, strength)
    return Look(noise, in_distribution, score)


def judge(prototypes: Prototypes, look: Look) -> ImageReport:
    """Is a picture with this noise gradable, and if not, why?"""
    noise, behind = look.noise, look.behind
    remedy = prototypes.remedy(noise.kind, noise.severity)
    if noise.kind == "unknown":
        reason = "noise or a kind of picture that the prototypes do not know; it is left as it is"
        return ImageReport(None, noise, None, reason)
    if remedy is not None and not look.in_distribution:
        reason = f"{noise.kind}, on a kind of picture that the prototypes do not know; its features are left alone"
        return ImageReport(None, noise, None, reason)
    if remedy is not None and not remedy.gradable:
        reason = f"{noise.kind} of severity {noise.severity}: {remedy.after:.0%} of what the encoder sees stays lost"
        return ImageReport(None, noise, False, reason)
    if behind is not None and behind.kind != "clean":
        return ImageReport(None, noise, None, f"{noise.kind}, and behind it {behind.kind}, which is left as it is")
    return ImageReport(None, noise, True)
