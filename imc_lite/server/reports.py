"""What answers, verdicts and repairs say in replies, described at /openapi.json: the rows of docs/json.md."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Noise(BaseModel):
    kind: str
    severity: int
    probability: float
    strength: float


class ImageReport(BaseModel):
    """As `imc-lite inspect --json`."""

    path: str | None
    noise: Noise | None
    gradable: bool | None
    reason: str | None
    restored: bool
    calibrated: bool


class Shown(BaseModel):
    """The verdict, and the picture as PNG data URIs before and after restoration."""

    image: ImageReport
    before: str
    after: str | None


class Edit(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    source: str = Field(alias="from")
    to: str
    reason: str
    probability: float


class QuestionReport(BaseModel):
    """As `imc-lite repair --json`."""

    original: str
    repaired: str
    edits: list[Edit]
    unsure: list[str]
    checked: bool
    reason: str | None


class Shared(BaseModel):
    id: str | None
    image: ImageReport
    timings_ms: dict[str, float]
    model: dict[str, str]
    versions: dict[str, str]


class Report(Shared):
    question: QuestionReport


class ImageReliance(BaseModel):
    nats: float
    same_without: bool


class Selective(BaseModel):
    risk: float
    answered: bool
    reasons: list[str]


class Rewording(BaseModel):
    """Other wordings of the question, and which of them get the same answer."""

    asked: list[str]
    same: list[bool]


class Trust(BaseModel):
    """How sure an answer is, and whether it is given."""

    confidence: float | None
    token_probability: float | None
    image_reliance: ImageReliance | None
    selective: Selective | None
    rewording: Rewording | None


class Answer(Report, Trust):
    """As `imc-lite answer --json`."""

    answer: str | None


class Entry(Trust):
    """One of several answers."""

    answer: str | None
    question: QuestionReport
    timings_ms: dict[str, float]


class Answers(Shared):
    """As a row of `imc-lite answer --batch` with several questions."""

    answers: list[Entry]
