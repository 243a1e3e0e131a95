"""What a folder of pictures looked like at one time, kept in a small file to compare later ones with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from imc_lite import __version__
from imc_lite.errors import ImcError, shown
from imc_lite.files import write_atomically
from imc_lite.gate.statistics import Distribution
from imc_lite.gate.tally import GRADABLE, KINDS, Tally
from imc_lite.images.dicom.windows import canonical
from imc_lite.pipeline import IMC

FORMAT = 1
LARGEST = 1 << 20  # bytes; what we write has some ten thousand
REMEDY = "make one: imc-lite inspect FOLDER --save-baseline FILE"


@dataclass(frozen=True)
class Origin:
    """What verdicts come from; those of another origin cannot be compared. `encoder` and `preprocessing`: SHA-256,
    `MLLM.identity`; `prototypes`: SHA-256; `window` and `frame`: how DICOM was shown."""

    encoder: str
    preprocessing: str
    prototypes: str
    window: str | None = None
    frame: int | None = None

    @classmethod
    def of(cls, imc: IMC, *, window: str | None = None, frame: int | None = None) -> Origin:
        """Of an opened model.

        Raises:
            ImcError: it has no prototypes.
        """
        encoder = imc.model.identity
        return cls(
            encoder["encoder"], encoder["preprocessing"], imc.noise_prototypes().digest(), window=window, frame=frame
        )


@dataclass(frozen=True)
class Baseline:
    """Counts and distributions over the pictures of one time.

    Attributes:
        origin: what judged them.
        pictures: those with a verdict.
        unreadable: those that could not be read.
        kinds: pictures by kind, then severity.
        gradable: pictures by `gradable`, `not gradable`, `left alone`.
        out_of_distribution_score, probability: their distributions.
        imc_lite: the version that wrote it.
    """

    origin: Origin
    pictures: int
    unreadable: int
    kinds: dict[str, dict[str, int]]
    gradable: dict[str, int]
    out_of_distribution_score: Distribution
    probability: Distribution
    imc_lite: str = __version__

    @classmethod
    def of(cls, tally: Tally, origin: Origin) -> Baseline:
        """Of what was counted.

        Raises:
            ImcError: no picture has a verdict.
        """
        if not tally.pictures:
            raise ImcError("no picture could be judged, so there is nothing to compare; give a folder of pictures")
        return cls(
            origin,
            tally.pictures,
            tally.unreadable,
            {kind: {str(s): n for s, n in sorted(tally.kinds[kind].items())} for kind in KINDS if kind in tally.kinds},
            {word: tally.gradable[word] for word in GRADABLE.values()},
            Distribution.of(tally.scores),
            Distribution.of(tally.probabilities),
        )

    def count(self, kind: str) -> int:
        """Pictures of a kind, whatever the severity."""
        return sum(self.kinds.get(kind, {}).values())

    def save(self, path: Path) -> None:
        """Write the file, all or nothing.

        Raises:
            ImcError: it cannot be written.
        """
        text = json.dumps({"format": FORMAT, **asdict(self)}) + "\n"
        write_atomically(path, lambda file: file.write(text.encode()))


def load_baseline(path: Path) -> Baseline:
    """Read a file of `Baseline.save`.

    Raises:
        ImcError: unreadable, no baseline, or of another format.
    """
    try:
        with path.open("rb") as file:
            data = json.loads(file.read(LARGEST))
        if data.pop("format") != FORMAT:
            raise ImcError(f"the baseline in {shown(path)} has another format; {REMEDY}")
        return _checked(Baseline(**{**data, "origin": Origin(**data["origin"]), **_distributions(data)}))
    except OSError as error:
        raise ImcError(f"cannot read {shown(path)} ({error.strerror or error}); {REMEDY}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ImcError(f"{shown(path)} holds no baseline; {REMEDY}") from error


def check_origin(baseline: Baseline, origin: Origin, path: Path) -> None:
    """Refuse to compare with verdicts that come from something else.

    Raises:
        ImcError: it is said what differs.
    """
    before, now = (asdict(one) | _view(one) for one in (baseline.origin, origin))
    for name in before:
        if before[name] != now[name]:
            raise ImcError(f"the baseline in {shown(path)} was made with another {name}; {REMEDY}")


def _view(origin: Origin) -> dict[str, Any]:
    """Window and frame, however they were spelt."""
    return {"window": canonical(origin.window) if isinstance(origin.window, str) else None, "frame": origin.frame or 1}


def _distributions(data: dict[str, Any]) -> dict[str, Distribution]:
    names = ("out_of_distribution_score", "probability")
    arrays = ("values", "below", "at_most")
    return {n: Distribution(data[n]["total"], *(tuple(data[n][name]) for name in arrays)) for n in names}


def _checked(baseline: Baseline) -> Baseline:
    """The same; what does not fit together is a ValueError."""
    by_kind = [n for of_kind in baseline.kinds.values() for n in of_kind.values()]
    distributions = (baseline.out_of_distribution_score, baseline.probability)
    fits = all(isinstance(n, int) and n >= 0 for n in (*by_kind, *baseline.gradable.values(), baseline.unreadable))
    fits &= sum(by_kind) == sum(baseline.gradable.values()) == baseline.pictures > 0
    fits &= set(baseline.kinds) <= set(KINDS) and set(baseline.gradable) == set(GRADABLE.values())
    if not (fits and all(d.total == baseline.pictures and _ascending(d) for d in distributions)):
        raise ValueError("a baseline that does not add up")
    return baseline


def _ascending(distribution: Distribution) -> bool:
    def rises(row: Sequence[float]) -> bool:
        return all(a < b for a, b in pairwise(row))

    below, at_most = distribution.below, distribution.at_most
    counts = (0, *(n for pair in zip(below, at_most, strict=True) for n in pair), distribution.total)
    return (
        len(distribution.values) == len(below) > 0
        and all(isinstance(v, (int, float)) for v in distribution.values)
        and all(isinstance(n, int) for n in counts)
        and rises(distribution.values)
        and rises(at_most)
        and all(a <= b for a, b in pairwise(counts))
        and at_most[-1] == distribution.total
    )
