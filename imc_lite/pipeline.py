"""Image and question in, answer and report out."""

from __future__ import annotations

import math
import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from imc_lite.errors import ImcError
from imc_lite.images.load import Source, load_image
from imc_lite.models.base import MLLM, Perception
from imc_lite.pdc.prototypes import Prototypes, load_prototypes
from imc_lite.pdc.restorers import restore
from imc_lite.results import ImageReport, Noise, QuestionReport, Result

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

MAX_QUESTION = 2000
MAX_NEW_TOKENS = 64


class IMC:
    """A medical visual question answerer.

    >>> imc = IMC.from_pretrained()
    >>> imc.answer("tests/images/synpic28602.jpg", "What modality is this?").answer
    'x-ray'
    """

    def __init__(self, model: MLLM, prototypes: Prototypes | None = None, *, sms: bool = True) -> None:
        """Answer with an opened model; `from_pretrained` opens one by name.

        Args:
            model: the model.
            prototypes: of its encoder; without them noise is neither looked for nor calibrated.
            sms: repair damaged questions.
        """
        self.model, self.prototypes, self.sms = model, prototypes, sms

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | PreTrainedModel = "default",
        *,
        processor: ProcessorMixin | None = None,
        device: str = "auto",
        quant: str = "auto",
        threads: int = 1,
        offline: bool = False,
        pdc: bool = True,
        sms: bool = True,
        prototypes: Path | None = None,
    ) -> IMC:
        """Open the default model, a bundle folder, or a Hugging Face vision-language model.

        Args:
            model: "default"; the folder of a bundle; "organisation/name" on the Hugging Face hub, or the folder of
                such a checkpoint; or a loaded transformers model.
            processor: of a loaded model.
            device: "cpu", "cuda", or "auto": CUDA for Hugging Face models, and bundles of them, where there is one. The
                default model runs on the CPU unless "cuda" is asked for, then in torch.
            quant: of a Hugging Face language model: "none", "int8" (torchao, CPU), "int4" (bitsandbytes, CUDA); "auto"
                is int4 on CUDA and none on the CPU.
            threads: CPU threads.
            offline: fetch nothing: the default model's base weights, or the checkpoint, must be in the cache.
            pdc: look for image noise and calibrate (PDC); False answers as the plain model does.
            sms: repair damaged questions (SMS); False asks them as they are.
            prototypes: a file of `imc-lite prototypes build`; a bundle brings its own. A Hugging Face model without
                them answers, but noise is neither looked for nor calibrated.

        Raises:
            ImcError: no such model, one that is not supported, the default one cannot be built, or the prototypes
                belong to another encoder.
        """
        from imc_lite.models.open import open_mllm

        opened = open_mllm(model, processor=processor, device=device, quant=quant, threads=threads, offline=offline)
        file = (prototypes or opened.prototypes_file()) if pdc else None
        if file is None:
            return cls(opened, sms=sms)
        return cls(opened, load_prototypes(file, opened.identity), sms=sms)

    def repair(self, question: str) -> QuestionReport:
        """The question with its damage repaired where that is safe, and every edit.

        Raises:
            ImcError: the question cannot be used.
        """
        from imc_lite.sms.agents import repair

        rewrites = self.prototypes is not None and bool(self.prototypes.facts.get("rewrites"))
        return repair(self.model, check_question(question), rewrites=rewrites)

    def inspect(self, image: Source, *, window: str | None = None, frame: int | None = None) -> ImageReport:
        """Which noise a picture carries and whether it is gradable; the language model is not loaded.

        `window` and `frame` are for DICOM, see `imc_lite.images.load.load_image`.

        Raises:
            ImcError: the image cannot be used, or the model has no prototypes.
        """
        if self.prototypes is None:
            raise ImcError(
                "noise is read from prototypes and this model was opened without; "
                "build them: imc-lite prototypes build, then give --prototypes"
            )
        stats = self.model.perceive(load_image(image, window=window, frame=frame)).stats
        noise, familiar = self.prototypes.matcher.match(stats, self.model.evidence)
        return replace(self._judge(noise, familiar), path=_path(image))

    def see(self, pixels: np.ndarray, perception: Perception | None = None) -> Seen:
        """The encoder's pass and, on a noisy picture, what makes up for the noise.

        Args:
            pixels: uint8 [H, W, 3] RGB.
            perception: of these pixels, where it is known already.
        """
        began = time.perf_counter()
        perception = perception or self.model.perceive(pixels)
        perceived = time.perf_counter()
        tokens, report = perception.tokens, ImageReport(path=None)
        if self.prototypes is not None:
            noise, familiar = self.prototypes.matcher.match(perception.stats, self.model.evidence)
            report = self._judge(noise, familiar)
            remedy = self.prototypes.remedy(noise.kind, noise.severity)
            if remedy is not None and remedy.restore:
                tokens = self.model.perceive(restore(pixels, noise.kind, noise.severity)).tokens
                report = replace(report, restored=True)
            transport = self.prototypes.transport(remedy) if remedy is not None and familiar else None
            if transport is not None:
                tokens = self.model.calibrate(tokens, transport)
                report = replace(report, calibrated=True)
        return Seen(tokens, report, perceived - began, time.perf_counter() - perceived)

    def _judge(self, noise: Noise, familiar: bool) -> ImageReport:
        assert self.prototypes is not None
        remedy = self.prototypes.remedy(noise.kind, noise.severity)
        if noise.kind == "unknown":
            reason = "noise or a kind of picture that the prototypes do not know; it is left as it is"
            return ImageReport(None, noise, None, reason)
        if remedy is not None and not familiar:
            reason = f"{noise.kind}, on a kind of picture that the prototypes do not know; its features are left alone"
            return ImageReport(None, noise, None, reason)
        if remedy is None or remedy.gradable:
            return ImageReport(None, noise, True)
        reason = f"{noise.kind} of severity {noise.severity}: {remedy.after:.0%} of what the encoder sees stays lost"
        return ImageReport(None, noise, False, reason)

    def answer(
        self,
        image: Source,
        question: str,
        *,
        id: str | None = None,
        window: str | None = None,
        frame: int | None = None,
        max_new_tokens: int = MAX_NEW_TOKENS,
        on_text: Callable[[str], object] | None = None,
    ) -> Result:
        """Answer one question about one picture, greedily: the same input gives the same answer.

        Args:
            image: what `imc_lite.images.load.load_image` takes.
            question: up to 2,000 characters.
            id: carried into the result.
            window: of a DICOM picture, see `imc_lite.images.load.load_image`.
            frame: of a DICOM file, counted from 1.
            max_new_tokens: the answer is cut off there.
            on_text: called with the answer so far after every token; what it raises ends the answer.

        Raises:
            ImcError: the image or the question cannot be used.
        """
        began = time.perf_counter()
        question = check_question(question)
        pixels = load_image(image, window=window, frame=frame)
        loaded = time.perf_counter()
        seen = self.see(pixels)
        perceived = time.perf_counter()
        report = self.repair(question) if self.sms else QuestionReport(question, question)
        repaired = time.perf_counter()
        generation = self.model.generate(report.repaired, seen.tokens, max_new_tokens, on_text)
        done = time.perf_counter()
        marks = {"load": loaded - began, "perceive": seen.perceive_s, "calibrate": seen.calibrate_s}
        marks |= {"repair": repaired - perceived, "decode": done - repaired, "total": done - began}
        return Result(
            id=id,
            answer=generation.text,
            confidence=math.exp(sum(generation.logprobs) / len(generation.logprobs)),
            image=replace(seen.report, path=_path(image)),
            question=report,
            timings_ms={k: round(v * 1000, 3) for k, v in marks.items()},
            model={"id": self.model.id, "version": self.model.version},
            versions=_versions(self.model),
        )


@dataclass(frozen=True)
class Seen:
    """What the language model is shown, float32 [N, D], the report on it, and the seconds both parts took."""

    tokens: np.ndarray
    report: ImageReport
    perceive_s: float
    calibrate_s: float


def _path(image: Source) -> str | None:
    return str(image) if isinstance(image, (str, Path)) else None


def find_bundle(model: str, *, offline: bool = False, progress: bool = True) -> Path:
    """The folder behind a model's name or path; the default model is built on first use."""
    if model == "default":
        from imc_lite.bundle.store import ensure_default

        return ensure_default(offline=offline, progress=progress)
    if Path(model).is_dir():
        return Path(model)
    raise ImcError(
        f"no model {model!r}: give `default`, the folder of a bundle or of a Hugging Face model, or its "
        "organisation/name"
    )


def check_question(question: str) -> str:
    """The question in Unicode NFC with single spaces, or ImcError when it cannot be asked."""
    if not isinstance(question, str):
        raise ImcError(f"the question must be text, not {type(question).__name__}; give a string")
    if len(question) > MAX_QUESTION:
        raise ImcError(f"the question has {len(question):,} characters, at most {MAX_QUESTION:,} are read; shorten it")
    # Surrogates come from undecodable bytes on the command line; no tokenizer takes them.
    text = unicodedata.normalize("NFC", question.encode("utf-8", "replace").decode("utf-8"))
    text = " ".join("".join(" " if unicodedata.category(c) == "Cc" else c for c in text).split())
    if not text:
        raise ImcError("the question is empty; ask something about the image")
    return text


def _versions(model: MLLM) -> dict[str, str]:
    from importlib import import_module

    from imc_lite import __version__

    return {"imc_lite": __version__, **{name: import_module(name).__version__ for name in model.runtime}}
