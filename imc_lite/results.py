"""What an answer looks like, in Python and as JSON: the same fields in both."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imc_lite.models.base import TokenLogprob


TRUST = ("token_probability", "image_reliance", "selective", "rewording")
# What each of several answers about a picture has of its own.
OWN = ("answer", "confidence", *TRUST, "question", "timings_ms")


@dataclass(frozen=True)
class Noise:
    """Verdict on an image: `kind` from the noise bank, "clean" or "unknown"; `severity` 0-5, of the bank's levels the
    nearest; `strength`, the same between these levels, as it was measured."""

    kind: str
    severity: int
    probability: float
    strength: float


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
class ImageReliance:
    """What the picture adds to an answer.

    nats: the answer's natural-log probability with the picture less that without it; same_without: whether it would be
    the same without.
    """

    nats: float
    same_without: bool


@dataclass(frozen=True)
class Rewording:
    """Other wordings of a question as the model was given it, and which of them get the same answer."""

    asked: tuple[str, ...]
    same: tuple[bool, ...]

    @property
    def share(self) -> float:
        """Of the wordings that get the same answer, 0-1."""
        return sum(self.same) / len(self.same)


@dataclass(frozen=True)
class Selective:
    """Whether to answer. `risk` is the probability that the answer is wrong, 1 - confidence; `reasons` say what speaks
    against it, and are there for answers that are given too."""

    risk: float
    answered: bool
    reasons: tuple[str, ...] = ()

    @property
    def refusal(self) -> str | None:
        """Why the answer is not given, as what is said of it; None where it is given."""
        if self.answered:
            return None
        return "; ".join((f"would be wrong with a probability of {self.risk:.2f}", *self.reasons))


@dataclass(frozen=True)
class Result:
    """One answer, or None where its risk was above what was allowed.

    `confidence` is the calibrated probability that it is right, 0-1; None where the model has none fitted.
    `token_probability` is the geometric mean of the probabilities of its tokens, 0-1; None where another server
    answered and did not give them. `image_reliance` is None there, and `selective` where there is no confidence.
    `rewording` is there where it was asked for and the question has other wordings.

    `top_logprobs` are those of `Generation`, where they were asked for, and so is `cut`, whether the answer was cut off
    at its most tokens; they are not part of the JSON.
    """

    answer: str | None
    confidence: float | None
    image: ImageReport
    question: QuestionReport
    timings_ms: dict[str, float]
    model: dict[str, str]
    token_probability: float | None = None
    image_reliance: ImageReliance | None = None
    selective: Selective | None = None
    rewording: Rewording | None = None
    id: str | None = None
    versions: dict[str, str] = field(default_factory=dict, repr=False)
    top_logprobs: tuple[tuple[TokenLogprob, ...], ...] = field(default=(), repr=False)
    cut: bool = field(default=False, repr=False)

    def __repr__(self) -> str:
        noise = f", noise={self.image.noise.kind!r}" if self.image.noise else ""
        edits = f", edits={len(self.question.edits)}" if self.question.edits else ""
        sure = "None" if self.confidence is None else f"{self.confidence:.3f}"
        return f"Result(answer={self.answer!r}, confidence={sure}{noise}{edits})"

    def to_dict(self) -> dict[str, Any]:
        """The row that `--json` prints; see docs/json.md for the stable schema."""
        row = asdict(self)
        del row["top_logprobs"], row["cut"]
        row["question"] = self.question.to_dict()
        if self.selective is not None:
            row["selective"]["reasons"] = list(self.selective.reasons)
        if self.rewording is not None:
            row["rewording"] = {name: list(each) for name, each in row["rewording"].items()}
        trust = {name: row.pop(name) for name in TRUST}
        return {"id": row.pop("id"), "answer": row.pop("answer"), "confidence": row.pop("confidence"), **trust, **row}

    def to_entry(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The row of one of several answers about a picture: its own entry, and what it shares with the others."""
        shared = self.to_dict()
        entry = {name: shared.pop(name) for name in OWN}
        del entry["timings_ms"]["load"]
        return entry, shared
