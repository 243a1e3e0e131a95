"""`--fail-on`: which verdicts fail a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from imc_lite.errors import ImcError, shown
from imc_lite.gate.judge import Judged
from imc_lite.noise.image import FURTHER_KINDS, IMAGE_KINDS

NOT_GRADABLE, UNKNOWN, NOISY, UNREADABLE, DRIFT = "not-gradable", "unknown", "noisy", "unreadable", "drift"
SEVERITIES = range(1, 6)
NOISES = (*IMAGE_KINDS, *FURTHER_KINDS)  # that a verdict may name


@dataclass(frozen=True)
class Rule:
    """A word of `--fail-on`, with the least severity that it asks for; 0 takes all."""

    word: str
    severity: int = 0

    def __str__(self) -> str:
        return f"{self.word}:{self.severity}" if self.severity else self.word

    def met_by(self, judged: Judged) -> bool:
        """Whether a picture fails by it. `drift` is met by all pictures together, by none alone."""
        if judged.report is None or judged.report.noise is None:
            return self.word == UNREADABLE and judged.error is not None
        noise = judged.report.noise
        if self.word == NOT_GRADABLE:
            return judged.report.gradable is False
        if self.word == NOISY:
            return noise.kind in NOISES and noise.severity >= self.severity
        return noise.kind == self.word and noise.severity >= self.severity


def parse_rules(given: Sequence[str]) -> tuple[Rule, ...]:
    """Rules from words, or from several words between commas; each once, in their order.

    Raises:
        ImcError: a word that is no rule.
    """
    return tuple(dict.fromkeys(_rule(word.strip()) for words in given for word in words.split(",")))


def _rule(text: str) -> Rule:
    word, colon, severity = text.partition(":")
    if not colon and word in (NOT_GRADABLE, UNKNOWN, NOISY, UNREADABLE, DRIFT, *NOISES):
        return Rule(word)
    if word in (NOISY, *NOISES) and severity in map(str, SEVERITIES):
        return Rule(word, int(severity))
    raise ImcError(
        f"--fail-on {shown(text)!r} is no rule; give {NOT_GRADABLE}, {UNKNOWN}, {NOISY}, {UNREADABLE}, {DRIFT} or a "
        f"kind of noise ({', '.join(NOISES)}), {NOISY} and kinds with :1 to :5 for at least that severity"
    )
