"""What one picture goes through: match, restore, calibrate, report."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from imc_lite.models.base import MLLM, Perception
from imc_lite.pdc.blocks import find_blocks
from imc_lite.pdc.features import noise_statistics
from imc_lite.pdc.full_size import restore_for, restore_full_size
from imc_lite.pdc.impulse import impulse_strength
from imc_lite.pdc.prototypes import Prototypes
from imc_lite.pdc.remedies import Remedy
from imc_lite.pdc.waves import spike_strength
from imc_lite.results import ImageReport, Noise

SURE = 0.99  # of what the pixels show


@dataclass(frozen=True, eq=False)
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
        remedy = look.remedy(prototypes)
        report, restored = judge(prototypes, look), None
        if remedy is not None and remedy.restore:
            again, restored = look.again, look.restored
            if restored is None:
                restored = restore_for(model, pixels, remedy.kind, remedy.severity)
            tokens = (again or model.perceive(restored)).tokens
            report = replace(report, restored=True)
        if remedy is not None and look.in_distribution and (fitted := prototypes.low_rank_map(remedy)) is not None:
            moved = model.calibrate(tokens, fitted)
            if prototypes.leads_back(remedy, moved):
                tokens, report = moved, replace(report, calibrated=True)
            else:
                lost = "calibrated, it is like no clean picture that the prototypes know; its features are left alone"
                report = replace(report, gradable=None, reason=f"{look.noise.kind}; {lost}")
    return Treated(tokens, report, restored, perceived - began, time.perf_counter() - perceived)


@dataclass(frozen=True, eq=False)
class RestoredPicture:
    """A picture for a model that is shown pixels, and not the tokens of this encoder.

    Attributes:
        report: the verdict, and what was done about it.
        pixels: uint8 [H, W, 3], of the picture's own size; None where they were left alone.
        perceive_s: seconds of naming the noise, the encoder's pass among them.
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

    def own(self) -> RestoredPicture:
        """With pixels that whoever gets them may change; what is remembered stays as it is."""
        return self if self.pixels is None else replace(self, pixels=self.pixels.copy())


def restore_picture(model: MLLM, prototypes: Prototypes, pixels: np.ndarray) -> RestoredPicture:
    """The verdict on a picture, uint8 [H, W, 3] RGB, which is restored where `treat_picture` would restore it."""
    began = time.perf_counter()
    look = name_noise(model, prototypes, pixels)
    perceived = time.perf_counter()
    remedy = look.remedy(prototypes)
    report, restored = judge(prototypes, look), None
    if remedy is not None and remedy.restore:
        restored, report = restore_full_size(pixels, remedy.kind, remedy.severity), replace(report, restored=True)
    return RestoredPicture(report, restored, perceived - began, time.perf_counter() - perceived)


def inspect(model: MLLM, prototypes: Prototypes, pixels: np.ndarray) -> ImageReport:
    """The verdict on a picture, uint8 [H, W, 3] RGB, from one encoder pass (two where waves cross it); nothing is done
    about it."""
    return examine(model, prototypes, pixels)[0]


def examine(model: MLLM, prototypes: Prototypes, pixels: np.ndarray) -> tuple[ImageReport, float]:
    """Like `inspect`, and with it the out-of-distribution score, how far the picture lies from those that the
    prototypes were fitted to."""
    look = name_noise(model, prototypes, pixels)
    return judge(prototypes, look), look.score


@dataclass(frozen=True, eq=False)
class Look:
    """Which noise a picture carries.

    Attributes:
        noise: the verdict.
        in_distribution: whether the picture is like those that the prototypes were fitted to.
        score: how far it lies from them, the out-of-distribution score.
        behind: what is seen behind the waves of a spike, which hide it from the encoder; None without waves.
        restored: the picture without its waves, uint8 [h, w, 3], where there were any; `again`: the model's pass over
            that, where noise is read from it.
        hidden: whether the noise is seen by the picture's own pixels alone: by the encoder's pass, it is clean.
    """

    noise: Noise
    in_distribution: bool
    score: float
    behind: Noise | None = None
    restored: np.ndarray | None = None
    again: Perception | None = None
    hidden: bool = False

    def remedy(self, prototypes: Prototypes) -> Remedy | None:
        """What makes up for the noise; None for noise that the encoder does not see, as it does not see a clean one."""
        return None if self.hidden else prototypes.remedy(self.noise.kind, self.noise.severity)


def name_noise(model: MLLM, prototypes: Prototypes, pixels: np.ndarray, stats: np.ndarray | None = None) -> Look:
    """Which noise a picture carries, by its pixels and by a pass of the encoder that the prototypes read it from.

    Args:
        model: encodes, and computes the evidence, unless the prototypes bring an encoder of their own for it.
        prototypes: of its encoder.
        pixels: uint8 [H, W, 3] RGB.
        stats: float32 [S], of the model's pass over them, where it has been made already.
    """
    if strength := spike_strength(pixels):
        restored = restore_for(model, pixels, "spike", round(strength))
        # Who has encoded the picture will want the tokens of the restored one, too.
        encodes = stats is not None and prototypes.noise_encoder is None
        again = model.perceive(restored) if encodes else None
        behind, in_distribution, score = _examine(model, prototypes, restored, None if again is None else again.stats)
        return Look(Noise("spike", round(strength), SURE, strength), in_distribution, score, behind, restored, again)
    noise, in_distribution, score = _examine(model, prototypes, pixels, stats)
    if noise.kind not in ("clean", "impulse") and (strength := impulse_strength(pixels)):
        noise = Noise("impulse", round(strength), SURE, strength)
    if noise.kind == "clean" and (blocks := find_blocks(pixels)):
        return Look(Noise(blocks, 1, SURE, 1.0), in_distribution, score, hidden=True)
    return Look(noise, in_distribution, score)


def _examine(
    model: MLLM, prototypes: Prototypes, pixels: np.ndarray, stats: np.ndarray | None
) -> tuple[Noise, bool, float]:
    """The matcher's verdict on pixels, of which the model's own pass may have been made."""
    if prototypes.noise_encoder is not None:
        return prototypes.matcher.examine(prototypes.noise_encoder.stats(pixels))
    return prototypes.matcher.examine(noise_statistics(model, pixels) if stats is None else stats, model.evidence)


def judge(prototypes: Prototypes, look: Look) -> ImageReport:
    """Is a picture with this noise gradable, and if not, why?"""
    noise, behind = look.noise, look.behind
    if look.hidden:
        if prototypes.noise_encoder is None:
            return ImageReport(None, noise, True)
        reason = f"{noise.kind}, seen at the picture's own size; how much of it this model's encoder loses is not known"
        return ImageReport(None, noise, None, reason)
    remedy = prototypes.remedy(noise.kind, noise.severity)
    if noise.kind == "unknown":
        reason = "noise or a kind of picture that the prototypes do not know; it is left as it is"
        return ImageReport(None, noise, None, reason)
    if remedy is not None and not look.in_distribution:
        reason = f"{noise.kind}, on a kind of picture that the prototypes do not know; its features are left alone"
        return ImageReport(None, noise, None, reason)
    if remedy is not None and prototypes.borrowed:
        reason = f"{noise.kind} of severity {noise.severity}; how much of it this model's encoder loses is not known"
        return ImageReport(None, noise, None, reason)
    if remedy is not None and not remedy.gradable:
        reason = f"{noise.kind} of severity {noise.severity}: {remedy.after:.0%} of what the encoder sees stays lost"
        return ImageReport(None, noise, False, reason)
    if behind is not None and behind.kind != "clean":
        return ImageReport(None, noise, None, f"{noise.kind}, and behind it {behind.kind}, which is left as it is")
    return ImageReport(None, noise, True)
