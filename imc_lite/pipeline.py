"""Image and question in, answer and report out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from imc_lite.errors import ImcError
from imc_lite.images.load import LoadedImage, Source, load_shown, path_of
from imc_lite.models.base import MLLM, Perception, check_counts, optional_arguments, versions
from imc_lite.models.deadline import NEVER, Deadline
from imc_lite.models.remembered import Remembered
from imc_lite.pdc.prototypes import Prototypes, prototypes_of
from imc_lite.pdc.recent import RecentPictures
from imc_lite.pdc.treat import RestoredPicture, Treated, inspect, restore_picture, treat_picture
from imc_lite.results import ImageReport, QuestionReport, Result
from imc_lite.sms.question import check_question
from imc_lite.sms.spacing import keep_spacing
from imc_lite.trust.assess import Trust, assess, check_asked, token_probability
from imc_lite.trust.confidence import Confidence, load_confidence

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

    from imc_lite.upstream.answering import Shown
    from imc_lite.upstream.client import Upstream

MAX_NEW_TOKENS = 64
MOST_QUESTIONS = 100  # about one picture, in a row of a batch or a request


class IMC:
    """A medical visual question answerer.

    >>> imc = IMC.from_pretrained()
    >>> imc.answer("tests/images/synpic28602.jpg", "What modality is this?").answer
    'x-ray'
    """

    def __init__(
        self,
        model: MLLM,
        prototypes: Prototypes | None = None,
        *,
        sms: bool = True,
        upstream: Upstream | None = None,
        confidence: Confidence | None = None,
    ) -> None:
        """Answer with an opened model; `from_pretrained` opens one by name.

        Args:
            model: the model.
            prototypes: of its encoder; without them noise is neither looked for nor calibrated.
            sms: repair damaged questions.
            upstream: another server that `answer` asks in the model's place; the model looks for noise and repairs.
            confidence: fitted for the model; without it nobody knows how often its answers are right.
        """
        self.confidence = confidence
        self.model, self.prototypes, self.sms, self.upstream = model, prototypes, sms, upstream
        self._recent: RecentPictures[Treated] = RecentPictures()
        self._restored: RecentPictures[RestoredPicture] = RecentPictures()
        self._repaired: Remembered[str, QuestionReport] = Remembered()
        self._elsewhere = None
        if upstream is not None:
            from imc_lite.upstream.answering import UpstreamAnswers

            self._elsewhere = UpstreamAnswers(upstream, model, prototypes, self._restored)

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
        confidence: Path | None = None,
        upstream: str | None = None,
        upstream_model: str | None = None,
        upstream_timeout: float | None = None,
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
            offline: fetch nothing: the default model's base weights, or the checkpoint, must be in the cache, and an
                upstream on this machine.
            pdc: look for image noise and calibrate (PDC); False answers as the plain model does.
            sms: repair damaged questions (SMS); False asks them as they are.
            prototypes: a file of `imc-lite prototypes build`; a bundle brings its own. For a model without any, noise
                is named and pixels are restored as for the default model, and its features are not calibrated
                (`imc_lite.pdc.prototypes.prototypes_of`).
            confidence: a file of `imc-lite calibrate`; a bundle may bring its own.
            upstream: base URL of a server of OpenAI's chat API that answers, such as http://127.0.0.1:11434/v1; the
                model then looks for noise and repairs the question. A key is taken from IMC_LITE_UPSTREAM_KEY.
            upstream_model: the model's name there; without it the upstream chooses.
            upstream_timeout: seconds that an answer of the upstream may take, 60 by default.

        Raises:
            ImcError: no such model, one that is not supported, the default one cannot be built, the prototypes or the
                confidence belong to another model, or what is said of the upstream or the threads cannot be meant.
        """
        from imc_lite.models.open import open_mllm

        asked = None
        if upstream is not None and confidence is not None:
            raise ImcError("a confidence is for models that answer here; leave it or the upstream out")
        if upstream is not None:
            from imc_lite.upstream.client import TIMEOUT, Upstream

            seconds = TIMEOUT if upstream_timeout is None else upstream_timeout
            asked = Upstream(upstream, upstream_model, timeout=seconds, offline=offline)
        elif upstream_model is not None or upstream_timeout is not None:
            raise ImcError("the upstream's model and timeout go with an upstream; give its URL")
        opened = open_mllm(model, processor=processor, device=device, quant=quant, threads=threads, offline=offline)
        known = prototypes_of(opened, prototypes) if pdc else None
        fitted = confidence or getattr(opened, "confidence_file", lambda: None)()
        sure = None if fitted is None or asked is not None else load_confidence(fitted, opened.identity, opened.version)
        return cls(opened, known, sms=sms, upstream=asked, confidence=sure)

    def repair(self, question: str, *, deadline: Deadline = NEVER) -> QuestionReport:
        """The question with its damage repaired where that is safe, and every edit; the last questions are remembered.

        Raises:
            ImcError: the question cannot be used.
            DeadlineError: the repair is no longer wanted.
        """
        from imc_lite.sms.agents import repair

        asked, rewrites = check_question(question), self.model.rewrites
        return self._repaired.get(asked, lambda: repair(self.model, asked, rewrites=rewrites, deadline=deadline))

    def inspect(
        self, image: Source | LoadedImage, *, window: str | None = None, frame: int | None = None
    ) -> ImageReport:
        """Which noise a picture carries and whether it is gradable; the language model is not loaded.

        `window` and `frame` are for DICOM, see `imc_lite.images.load.load_image`.

        Raises:
            ImcError: the image cannot be used, the model has no prototypes, or they were built with another window.
        """
        found = inspect(self.model, self.noise_prototypes(), self.load(image, window, frame).pixels)
        return replace(found, path=path_of(image))

    def noise_prototypes(self) -> Prototypes:
        """The prototypes that noise is read from.

        Raises:
            ImcError: the model was opened without.
        """
        if self.prototypes is None:
            raise ImcError(
                "noise is read from prototypes and this model was opened without; "
                "build them: imc-lite prototypes build, then give --prototypes"
            )
        return self.prototypes

    def see(self, image: np.ndarray | LoadedImage, perception: Perception | None = None) -> Treated:
        """What the language model would be shown of a picture (`imc_lite.pdc.treat`), `perception` where it is known.

        Raises:
            ImcError: it is no picture, or shown with another window than its prototypes were built with.
        """
        return treat_picture(self.model, self.prototypes, self.load(image).pixels, perception)

    def restore(
        self, image: Source | LoadedImage, *, window: str | None = None, frame: int | None = None
    ) -> RestoredPicture:
        """The picture at its own size with its noise taken out where that pays, for a model that is shown pixels.

        Args and errors are those of `inspect`.
        """
        treat = partial(restore_picture, self.model, self.noise_prototypes())
        found = self._restored.get(self.load(image, window, frame).pixels, treat).own()
        return replace(found, report=replace(found.report, path=path_of(image)))

    def answer(
        self,
        image: Source | LoadedImage,
        question: str,
        *,
        id: str | None = None,
        window: str | None = None,
        frame: int | None = None,
        max_new_tokens: int = MAX_NEW_TOKENS,
        on_text: Callable[[str], object] | None = None,
        deadline: Deadline = NEVER,
        top_logprobs: int = 0,
        of_many: bool = False,
        max_risk: float | None = None,
        check_wording: bool = False,
    ) -> Result:
        """Answer one question about one picture, greedily: the same input gives the same answer.

        The last pictures stay encoded in memory, known by their pixels: the next question about one of them spares the
        encoder, and its `timings_ms` have 0 for `perceive` and `calibrate`. So do the repairs of the last questions.

        Args:
            image: what `imc_lite.images.load.load_image` takes, or what `load_shown` gives.
            question: up to 2,000 characters.
            id: carried into the result.
            window: of a DICOM picture, see `imc_lite.images.load.load_image`.
            frame: of a DICOM file, counted from 1.
            max_new_tokens: the answer is cut off there.
            on_text: called with the answer so far after every token, with an upstream's once, and with one that may be
                withheld (`max_risk`); what it raises ends it.
            deadline: looked at between the steps and before every pass of the language model.
            top_logprobs: of each token of the answer, so many of the likeliest come with it (`Result.top_logprobs`).
            of_many: more questions about this picture come with this one. The default model on the CPU then reads what
                their prompts begin with, the picture, once for all of them, which pays from the second on.
            max_risk: 0-1; an answer that is likelier to be wrong is not given: `answer` is None, and `selective` says
                why.
            check_wording: ask the question in other words too; what comes of it counts in the confidence.

        Raises:
            ImcError: the image or the question cannot be used, the prototypes were built with another window,
                `max_new_tokens` is not in 1-512, `top_logprobs` is not in 0-20, the model does not tell them,
                `max_risk` is no share, or it or `check_wording` wants another confidence than there is, or the upstream
                does not answer (`imc_lite.upstream.errors`).
            DeadlineError: the answer is no longer wanted.
        """
        began = time.perf_counter()
        asked, question = question, check_question(question)
        check_counts(max_new_tokens, top_logprobs)
        check_asked(max_risk, check_wording, self.confidence, self._elsewhere is None)
        tell = None if max_risk is not None else on_text
        more = {} if self._elsewhere else optional_arguments(self.model, top_logprobs, of_many)
        picture = self.load(image, window, frame)
        loaded = time.perf_counter()
        deadline.check()
        seen: Treated | Shown
        seen = self._elsewhere.see(picture) if self._elsewhere else self._recent.get(picture.pixels, self.see)
        perceived = time.perf_counter()
        off = QuestionReport(question, question, checked=False, reason="question repair is switched off")
        report = self.repair(question, deadline=deadline) if self.sms else off
        repaired = time.perf_counter()
        if isinstance(seen, Treated):
            generation = self.model.generate(report.repaired, seen.tokens, max_new_tokens, tell, deadline, **more)
            answered, decoded = {"id": self.model.id, "version": self.model.version}, time.perf_counter()
            known = (self.model, self.confidence, report.repaired)
            trust = assess(*known, generation, seen.tokens, seen.report, max_risk, deadline, check_wording)
        else:
            text = keep_spacing(asked, report.repaired)
            generation, name = seen.ask(text, max_new_tokens, tell, deadline, top_logprobs)
            answered = {"id": name, "version": "unknown"}
            decoded, trust = time.perf_counter(), Trust(None, token_probability(generation), None, None)
        if (given := trust.given) and tell is None and on_text is not None:
            on_text(generation.text)  # whole: before, nobody knew whether it would be given
        done = time.perf_counter()
        marks = {"load": loaded - began, "perceive": seen.perceive_s, "calibrate": seen.calibrate_s}
        marks |= {"repair": repaired - perceived, "decode": decoded - repaired}
        marks |= {"assess": done - decoded, "total": done - began}
        return Result(
            id=id,
            answer=generation.text if given else None,
            **vars(trust),
            image=replace(seen.report, path=path_of(image)),
            question=report,
            timings_ms={k: round(v * 1000, 3) for k, v in marks.items()},
            model=answered,
            versions=versions(self.model),
            top_logprobs=generation.top_logprobs if given else (),
            cut=generation.cut,
        )

    def load(self, image: Source | LoadedImage, window: str | None = None, frame: int | None = None) -> LoadedImage:
        """The picture, where the prototypes are for pictures that are shown so.

        Raises:
            ImcError: it cannot be used, or the prototypes were built with another window.
        """
        if isinstance(image, LoadedImage):
            if window is not None or frame is not None:
                raise ImcError("a picture that is loaded is shown as it was loaded; give window and frame to `load`")
            loaded = image
        else:
            loaded = load_shown(image, window=window, frame=frame)
        if self.prototypes is not None:
            self.prototypes.check_window(loaded.window)
        return loaded
