"""What a worker does for each route: plain functions of a model and the request's deadline, in a worker's thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from imc_lite.models.base import TokenLogprob
from imc_lite.models.deadline import Deadline
from imc_lite.pipeline import IMC
from imc_lite.server.pictures import Picture, data_uri
from imc_lite.server.pool import Job

SHOWN = 640  # longest side of the picture that goes back to the page


@dataclass
class Ask:
    """Answers a question; `emit` gets the answer so far after every token, `tokens` counts them.

    `top_logprobs`, where it is not None, has of each token at least that many of the likeliest put into `found`.
    """

    picture: Picture
    question: str
    pdc: bool
    sms: bool
    max_new_tokens: int
    id: str
    emit: Callable[[str], object] | None = None
    tokens: int = 0
    prompt_tokens: int = 0
    top_logprobs: int | None = None
    found: tuple[tuple[TokenLogprob, ...], ...] = ()

    def __call__(self, imc: IMC, deadline: Deadline) -> dict[str, Any]:
        """The row of `imc-lite answer --json`."""
        began = time.perf_counter()
        picture = self.picture.load()
        load = 1000 * (time.perf_counter() - began)
        view = IMC(imc.model, imc.prototypes if self.pdc else None, sms=self.sms)
        result = view.answer(
            picture,
            self.question,
            id=self.id,
            max_new_tokens=self.max_new_tokens,
            on_text=self._on_text,
            deadline=deadline,
            top_logprobs=0 if self.top_logprobs is None else max(1, self.top_logprobs),
        )
        self.found = result.top_logprobs
        self.prompt_tokens = len(imc.model.encode(result.question.repaired))
        row = result.to_dict()
        timings = row["timings_ms"]
        timings["load"], timings["total"] = round(load, 3), round(timings["total"] + load, 3)
        return row

    def _on_text(self, text: str) -> None:
        self.tokens += 1
        if self.emit is not None:
            self.emit(text)


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
    picture = Image.fromarray(pixels)
    picture.thumbnail((SHOWN, SHOWN), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return data_uri(np.asarray(picture))
