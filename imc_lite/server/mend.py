"""What a worker does for a request that another server answers: look at its picture, repair its question."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import Any

from imc_lite.errors import ImcError
from imc_lite.images.data_uri import data_uri, file_uri
from imc_lite.images.dicom.file import is_dicom
from imc_lite.models.base import versions
from imc_lite.models.deadline import Deadline
from imc_lite.pipeline import IMC
from imc_lite.results import ImageReport, QuestionReport
from imc_lite.server.pictures import Picture
from imc_lite.sms.question import check_question
from imc_lite.sms.spacing import keep_spacing

NO_QUESTION = "nothing is asked in words"
OFF = "question repair is switched off"


@dataclass(frozen=True)
class Mended:
    """What was found, and what is sent on in its place.

    picture: the URL that takes the place of the request's; None leaves that.
    question: likewise the text.
    image, asked: the reports.
    timings_ms: so far.
    versions: of what looked.
    """

    picture: str | None
    question: str | None
    image: ImageReport
    asked: QuestionReport
    timings_ms: dict[str, float]
    versions: dict[str, str]


@dataclass(frozen=True)
class Mend:
    """Looks and repairs.

    picture: None where there is none to look at, for the reason `unseen`, if there is one.
    question: as it stands in the request; None where there is none.
    pdc, sms: whether to look at the picture, and whether to repair the question.
    restore: whether a restored picture may take the place of the one that was sent.
    """

    picture: Picture | None
    unseen: str | None
    question: str | None
    pdc: bool
    sms: bool
    restore: bool = True

    def __call__(self, imc: IMC, deadline: Deadline) -> Mended:
        began = time.perf_counter()
        times = dict.fromkeys(("load", "perceive", "calibrate"), 0.0)
        url, image = None, ImageReport(path=None, reason=self.unseen)
        if self.picture is not None:
            data = self.picture.data()
            loaded = replace(self.picture, source=data).load()
            times["load"] = time.perf_counter() - began
            deadline.check()
            pixels = None
            if self.pdc and imc.prototypes is not None:
                seen = imc.restore(loaded)
                image, pixels = seen.report, seen.pixels if self.restore else None
                times |= {"perceive": seen.perceive_s, "calibrate": seen.restore_s}
            # Servers that answer read no DICOM: they get what is shown of it.
            if pixels is None and is_dicom(data[:132], "image"):
                pixels = loaded.pixels
            if pixels is not None:
                url = data_uri(pixels)
            elif isinstance(self.picture.source, bytes):
                # What was judged is what is sent: who answers would fetch it anew, and could be given something else.
                url = file_uri(data)
            deadline.check()
        looked = time.perf_counter()
        asked = self._repair(imc, deadline)
        times["repair"] = time.perf_counter() - looked
        text = None if self.question is None or asked.repaired == asked.original else self.question
        question = None if text is None else keep_spacing(text, asked.repaired)
        return Mended(url, question, image, asked, {k: 1000 * s for k, s in times.items()}, versions(imc.model))

    def _repair(self, imc: IMC, deadline: Deadline) -> QuestionReport:
        text = self.question or ""
        if not text.strip():
            return QuestionReport(text, text, checked=False, reason=NO_QUESTION)
        if not (self.sms and imc.sms):
            return QuestionReport(text, text, checked=False, reason=OFF)
        try:
            return imc.repair(check_question(text), deadline=deadline)
        except ImcError as error:  # too long: what answers may read it all the same
            return QuestionReport(text, text, checked=False, reason=str(error))


def report(mended: Mended, id: str | None, answer: str | None, model: str, times: dict[str, float]) -> dict[str, Any]:
    """The row of `imc-lite answer --json` for an answer of another server, which does not say how sure it is.

    Args:
        mended: what was found and done.
        id: of the answer.
        answer: None where it has no text.
        model: that answered.
        times: milliseconds of what came after.
    """
    return {
        "id": id,
        "answer": answer,
        "confidence": None,
        "token_probability": None,
        "image_reliance": None,
        "selective": None,
        "rewording": None,
        "image": asdict(mended.image),
        "question": mended.asked.to_dict(),
        "timings_ms": {k: round(v, 3) for k, v in (mended.timings_ms | times).items()},
        "model": {"id": model, "version": "unknown"},
        "versions": mended.versions,
    }
