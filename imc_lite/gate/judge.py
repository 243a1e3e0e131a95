"""Verdicts on many pictures, in order: side by side with several threads; with one, while the encoder looks at a
picture, another thread reads those that come next."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from imc_lite.errors import ImcError, shown
from imc_lite.gate.find import Candidate
from imc_lite.images.dicom.image_pixel import NoPictureError
from imc_lite.models.base import MLLM
from imc_lite.models.replicas import in_order, replicas
from imc_lite.pdc.treat import examine
from imc_lite.pipeline import IMC
from imc_lite.results import ImageReport

AHEAD = 2  # pictures that are read or being read beside the one that is judged: three in memory


@dataclass(frozen=True)
class Judged:
    """What came of one candidate: a report with its score, an error, or neither where the file is no picture.

    Attributes:
        path: of the candidate.
        report: the verdict.
        score: the out-of-distribution score, with a report.
        error: why there is none.
    """

    path: str
    report: ImageReport | None = None
    score: float | None = None
    error: str | None = None

    @property
    def no_picture(self) -> bool:
        """Whether it is a file that holds no picture and is passed over."""
        return self.report is None and self.error is None


def judge(
    imc: IMC, candidates: Sequence[Candidate], *, window: str | None = None, frame: int | None = None
) -> Iterator[Judged]:
    """One verdict a candidate, in their order; by as many models side by side as `imc.model` has replicas.

    `window` and `frame` are for DICOM, see `imc_lite.images.load.load_image`.

    Raises:
        ImcError: the model has no prototypes. A picture that cannot be read is a verdict with an error.
    """
    prototypes = imc.noise_prototypes()

    def read(candidate: Candidate) -> np.ndarray | Judged:
        if candidate.error is not None:
            return Judged(candidate.path, error=candidate.error)
        try:
            return imc.load(candidate.path, window, frame).pixels
        except NoPictureError as error:
            return Judged(candidate.path, error=None if candidate.from_folder else str(error))
        except ImcError as error:
            return Judged(candidate.path, error=str(error))

    def look(model: MLLM, path: str, seen: np.ndarray | Judged) -> Judged:
        if isinstance(seen, Judged):
            return seen
        try:
            report, score = examine(model, prototypes, seen)
        except ImcError as error:  # too thin a picture for a model that scales the shorter side
            return Judged(path, error=f"{shown(path)}: {error}")
        return Judged(path, replace(report, path=path), score)

    # One picture alone gets all threads within its pass.
    models = replicas(imc.model) if len(candidates) > 1 else [imc.model]
    if len(models) == 1:
        return (look(imc.model, candidate.path, seen) for candidate, seen in _read_ahead(read, candidates))
    return in_order(models, lambda model, candidate: look(model, candidate.path, read(candidate)), candidates)


def _read_ahead(
    read: Callable[[Candidate], np.ndarray | Judged], candidates: Sequence[Candidate]
) -> Iterator[tuple[Candidate, np.ndarray | Judged]]:
    """What is read of each, by a thread that reads the next ones meanwhile."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="imc-lite-read")
    waiting: deque[tuple[Candidate, Future[np.ndarray | Judged]]] = deque()
    left = iter(candidates)
    try:
        while True:
            for candidate in left:
                waiting.append((candidate, pool.submit(read, candidate)))
                if len(waiting) > AHEAD:
                    break
            if not waiting:
                return
            candidate, future = waiting.popleft()
            seen = future.result()
            del future  # it would keep the pixels
            yield candidate, seen
            del seen
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
