"""What an answer looks like, in Python and as JSON: the same fields in both."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imc_lite.models.base import TokenLogprob


OWN = ("answer", "confidence", "question", "timings_ms")  # what each of several answers about a picture has of its own


@dataclass(frozen=True)
class Noise:
    """Verdict on an image: `kind` from the noise bank, "clean" or "unknown"; `severity` 0-5."""

    kind: str
    severity: int
    probability: float


@dataclass(frozen=True)
class ImageReport:
    """What was seen on the image and done about it. `noise` is None when it was not looked for."""

    path: str | None
    noise: Noise | None = None
    gradable: bool | None = None
    reason: str | None = None
    restored: bool = False
    calibrated: bool = False


@dataclass(frozen=True)
class Edit:
    """One repaired place of a question."""

    source: str
    target: str
    reason: str
    probability: float


@dataclass(frozen=True)
class QuestionReport:
    """The question as asked and as the model was given it.

    `unsure` holds words that look damaged and were left as they are, because no reading of them was sure. `checked` is
    False where not all of the question could be looked at for damage, and `reason` says why.
    """

    original: str
    repaired: str
    edits: tuple[Edit, ...] = ()
    unsure: tuple[str, ...] = ()
    checked: bool = True
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """What `imc-lite repair --json` prints."""
        edits = [{"from": e.source, "to": e.target, **asdict(e)} for e in self.edits]
        for edit in edits:
            del edit["source"], edit["target"]
        row = asdict(self)
        return {**row, "edits": edits, "unsure": list(self.unsure)}


@dataclass(frozen=True)
class Result:
    """One answer. `confidence` is the geometric mean of the answer's token probabilities, 0-1; None where another
    server answered and did not give them.

    `top_logprobs` are those of `Generation`, where they were asked for; they are not part of the JSON.
    """

    answer: str
    confidence: float | None
    image: ImageReport
    question: QuestionReport
    timings_ms: dict[str, float]
    model: dict[str, str]
    id: str | None = None
    versions: dict[str, str] = field(default_factory=dict, repr=False)
    top_logprobs: tuple[tuple[TokenLogprob, ...], ...] = field(default=(), repr=False)

    def __repr__(self) -> str:
        noise = f", noise={self.image.noise.kind!r}" if self.image.noise else ""
        edits = f", edits={len(self.question.edits)}" if self.question.edits else ""
        sure = "None" if self.confidence is None else f"{self.confidence:.3f}"
        return f"Result(answer={self.answer!r}, confidence={sure}{noise}{edits})"

    def to_dict(self) -> dict[str, Any]:
        """The row that `--json` prints; see docs/json.md for the stable schema."""
        row = asdict(self)
        del row["top_logprobs"]
        row["question"] = self.question.to_dict()
        return {"id": row.pop("id"), **row}

    def to_entry(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The row of one of several answers about a picture: its own entry, and what it shares with the others."""
        shared = self.to_dict()
        entry = {name: shared.pop(name) for name in OWN}
        del entry["timings_ms"]["load"]
        return entry, shared
