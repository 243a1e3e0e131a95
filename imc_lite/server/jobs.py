"""What a worker does for each route: plain functions of a model and the request's deadline, in a worker's thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from imc_lite.errors import ImcError
from imc_lite.images.data_uri import data_uri
from imc_lite.images.load import LoadedImage
from imc_lite.models.deadline import Deadline
from imc_lite.pipeline import IMC
from imc_lite.results import Result
from imc_lite.server.pictures import Picture
from imc_lite.server.pool import Job

SHOWN = 640  # longest side of the picture that goes back to the page


@dataclass(frozen=True)
class Answered:
    """An answer, with how many tokens it has, and its question."""

    result: Result
    tokens: int
    prompt_tokens: int


@dataclass(frozen=True)
class Growth:
    """The answer to the question at `index` as far as it has come; `whole` where that is all of it."""

    index: int
    text: str
    whole: Answered | None = None


@dataclass(frozen=True)
class Answers:
    """What came of all questions, and the report: the row of `imc-lite answer --json`, or a batch's of several."""

    each: tuple[Answered, ...]
    report: dict[str, Any]


@dataclass
class Ask:
    """Answers questions about one picture, which is encoded once.

    several: whether the report is that of several questions.
    top_logprobs: where it is not None, at least that many of the likeliest come with each token.
    max_risk: no answer that is likelier to be wrong.
    check_wording: whether every question is asked in other words too.
    emit: gets every answer as it grows.
    created: seconds since 1970, the same in all chunks of a stream.
    """

    picture: Picture
    questions: tuple[str, ...]
    several: bool
    pdc: bool
    sms: bool
    max_new_tokens: int
    id: str
    top_logprobs: int | None = None
    max_risk: float | None = None
    check_wording: bool = False
    emit: Callable[[Growth], object] | None = None
    created: int = field(default_factory=lambda: int(time.time()))

    def __call__(self, imc: IMC, deadline: Deadline) -> Answers:
        """All answers.

        Raises:
            ImcError: the picture or one of the questions cannot be used; it is said which question.
            DeadlineError: they are no longer wanted.
        """
        began = time.perf_counter()
        view = imc
        if not (self.pdc and self.sms):  # what is encoded and repaired otherwise is nothing to remember
            pdc = imc.prototypes if self.pdc else None
            view = IMC(imc.model, pdc, sms=self.sms and imc.sms, confidence=imc.confidence)
        picture = view.load(self.picture.load())
        load = time.perf_counter() - began
        each = tuple(self._answer(view, picture, index, deadline) for index in range(len(self.questions)))
        times = {"load": load, "total": time.perf_counter() - began}
        timings = {name: round(1000 * seconds, 3) for name, seconds in times.items()}
        if not self.several:
            row = each[0].result.to_dict()
            return Answers(each, {**row, "timings_ms": row["timings_ms"] | timings})
        entries, shared = zip(*(answered.result.to_entry() for answered in each), strict=True)
        return Answers(each, {**shared[0], "answers": list(entries), "timings_ms": timings})

    def _answer(self, view: IMC, picture: LoadedImage, index: int, deadline: Deadline) -> Answered:
        tokens = 0

        def grow(text: str) -> None:
            nonlocal tokens
            tokens += 1
            self._emit(Growth(index, text))

        try:
            result = view.answer(
                picture,
                self.questions[index],
                id=self.id,
                max_new_tokens=self.max_new_tokens,
                on_text=grow,
                deadline=deadline,
                top_logprobs=0 if self.top_logprobs is None else max(1, self.top_logprobs),
                of_many=len(self.questions) > 1,
                max_risk=self.max_risk,
                check_wording=self.check_wording,
            )
        except ImcError as error:
            if len(self.questions) == 1:
                raise
            raise ImcError(f"question {index + 1}: {error}") from error
        if self.max_risk is not None:  # told whole, or not at all
            tokens = len(view.model.encode(result.answer or ""))
        whole = Answered(result, tokens, len(view.model.encode(result.question.repaired)))
        self._emit(Growth(index, result.answer or "", whole))
        return whole

    def _emit(self, growth: Growth) -> None:
        if self.emit is not None:
            self.emit(growth)


def inspect(picture: Picture) -> Job[dict[str, Any]]:
    """The object of `imc-lite inspect --json`."""

    def job(imc: IMC, deadline: Deadline) -> dict[str, Any]:
        loaded = picture.load()
        deadline.check()
        return asdict(imc.inspect(loaded))

    return job


def repair(question: str) -> Job[dict[str, Any]]:
    """The object of `imc-lite repair --json`."""
    return lambda imc, deadline: imc.repair(question, deadline=deadline).to_dict()


def show(picture: Picture) -> Job[dict[str, Any]]:
    """The verdict on a picture, and the picture before and after restoration as PNG data URIs."""

    def job(imc: IMC, deadline: Deadline) -> dict[str, Any]:
        loaded = picture.load()
        deadline.check()
        seen = imc.see(loaded)
        deadline.check()
        after = None if seen.restored is None else _png(seen.restored)
        return {"image": asdict(seen.report), "before": _png(loaded.pixels), "after": after}

    return job


def _png(pixels: np.ndarray) -> str:
    return data_uri(small(pixels))


def small(pixels: np.ndarray) -> np.ndarray:
    """Pixels uint8 [H, W, 3] at the size at which a picture is shown."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((SHOWN, SHOWN), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return np.asarray(picture)
