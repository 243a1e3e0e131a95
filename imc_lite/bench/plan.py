"""What a run asks: pictures, questions, noises. Everything here follows from the data, the options and the seed."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from imc_lite.bench.asked import ASKED, ask_findings
from imc_lite.bench.data import Case
from imc_lite.bench.templates import ask, cell_questions, truths
from imc_lite.errors import ImcError, shown
from imc_lite.noise.image import FURTHER_KINDS, IMAGE_KINDS
from imc_lite.noise.text import TEXT_KINDS

if TYPE_CHECKING:
    from imc_lite.bench.generators import Generator

KINDS = IMAGE_KINDS + TEXT_KINDS
CELLS = 2  # questions about counts and places in one blood film
FEWEST = 3  # pictures
DAMAGED_SHARE = 0.2  # of the pictures with findings, whose questions have few wordings


@dataclass(frozen=True)
class Options:
    """What may be chosen of a run.

    noises: of `KINDS`, which is the default, `FURTHER_KINDS`, and the names of `generators`.
    severities: 1-5.
    limit: most pictures of one source; None takes all.
    questions: most of a data set's own questions about one picture.
    text_questions: as many of a data set's own, and as many other questions, are damaged for one picture at most.
    seed: of the noise and of every choice.
    generators: image noises of other projects.
    plain: ask the plain model alone, which needs no prototypes.
    """

    noises: tuple[str, ...] = KINDS
    severities: tuple[int, ...] = (2, 4)
    limit: int | None = None
    questions: int = 4
    text_questions: int = 1
    seed: int = 0
    generators: tuple[Generator, ...] = ()
    plain: bool = False

    @property
    def image_noises(self) -> tuple[str, ...]:
        """Names of all image noises that can be asked for: ours, then the others'."""
        return (*IMAGE_KINDS, *FURTHER_KINDS, *(g.name for g in self.generators))


@dataclass(frozen=True)
class Question:
    """One question of a run.

    picture: index of its picture.
    dataset: the data set whose own question it is, "templates", "cells", or what it asks about (see `asked`).
    closed: answered by yes or no.
    damaged: whether it is also asked with text noise.
    """

    picture: int
    dataset: str
    closed: bool
    text: str
    answer: str
    damaged: bool

    @property
    def group(self) -> str:
        """Questions that are counted together."""
        return f"{self.dataset} {'closed' if self.closed else 'open'}"


@dataclass(frozen=True)
class Plan:
    """Pictures, questions in the order of their pictures, and a fingerprint of both."""

    cases: tuple[Case, ...]
    questions: tuple[Question, ...]
    options: Options

    @property
    def image_conditions(self) -> list[tuple[str, int]]:
        """(kind, severity) of every image noise asked for."""
        kinds = self.options.image_noises
        return [(k, s) for k in kinds if k in self.options.noises for s in self.options.severities]

    @property
    def text_conditions(self) -> list[tuple[str, int]]:
        """(kind, severity) of every text noise asked for."""
        return [(k, s) for k in TEXT_KINDS if k in self.options.noises for s in self.options.severities]

    def seed(self, picture: int) -> int:
        """Of a picture's noise; it depends on the picture's name, not on which others are in the run."""
        return _seed(self.options.seed, self.cases[picture].name)

    def fingerprint(self) -> str:
        """SHA-256 of pictures, questions and seed: parts of another plan are not taken up."""
        digest = hashlib.sha256(str(self.options.seed).encode())
        for case in self.cases:
            # Its noise is seeded by its name; labels say which picture may take its place.
            digest.update(repr((case.source, case.name, sorted(case.labels.items()))).encode())
            digest.update(hashlib.sha256(case.path.read_bytes()).digest())
        for question in self.questions:
            digest.update(repr(asdict(question)).encode())
        return digest.hexdigest()


def make_plan(cases: list[Case], options: Options) -> Plan:
    """Choose the pictures, and the questions about each.

    Raises:
        ImcError: an unknown noise or severity, or too few pictures.
    """
    known = (*options.image_noises, *TEXT_KINDS)
    for noise in options.noises:
        if noise not in known:
            raise ImcError(f"unknown noise {shown(noise)!r}: choose of {', '.join(known)}")
    for severity in options.severities:
        if severity not in range(1, 6):
            raise ImcError(f"severity {severity!r} is out of range: choose 1 (mild) to 5 (severe)")
    chosen = []
    for source in sorted({c.source for c in cases}):
        mine = sorted((c for c in cases if c.source == source), key=lambda c: _seed(options.seed, c.name))
        chosen += sorted(mine[: options.limit], key=lambda c: c.name)
    if len(chosen) < FEWEST:
        raise ImcError(f"too few pictures for a benchmark ({len(chosen)}); give at least {FEWEST}")
    questions = [q for i, case in enumerate(chosen) for q in _ask(i, case, options)]
    return Plan(tuple(chosen), tuple(questions), options)


def _ask(picture: int, case: Case, options: Options) -> list[Question]:
    rng = np.random.default_rng([_seed(options.seed, case.name), 1])
    if case.source in ASKED:
        rows = ask_findings(case.source, case.labels, rng)
        # A repair takes several passes of the language model, so text noise takes fewer questions, here and below.
        most = options.text_questions if rng.random() < DAMAGED_SHARE else 0
        picked = _pick(range(len(rows)), most, rng)
        return [Question(picture, *row, damaged=i in picked) for i, row in enumerate(rows)]
    own = [case.questions[i] for i in sorted(rng.permutation(len(case.questions))[: options.questions])]
    rows = [(case.source, q["closed"], q["question"], q["answer"]) for q in own]
    if case.source != "slake":
        pairs = [ask(kind, value, rng) for kind, value in truths(case.source, case.labels).items()]
        rows += [("templates", answer in ("yes", "no"), question, answer) for question, answer in pairs]
    if case.source == "bccd":
        boxes = [(k, (x0 + x1) / 2, (y0 + y1) / 2) for k, x0, y0, x1, y1 in case.labels["boxes"]]
        rows += [("cells", a in ("yes", "no"), q, a) for q, a in cell_questions(boxes, rng, CELLS)]
    picked = _pick(range(len(own)), options.text_questions, rng)
    picked |= _pick(range(len(own), len(rows)), options.text_questions, rng)
    return [Question(picture, *row, damaged=i in picked) for i, row in enumerate(rows)]


def _pick(rows: range, most: int, rng: np.random.Generator) -> set[int]:
    """At most so many of the rows, drawn."""
    return set(rng.permutation(rows)[:most].tolist())


def _seed(seed: int, name: str) -> int:
    return zlib.crc32(f"{seed} {name}".encode())
