"""Training's questions about findings: which are asked about a view, and how often."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from wordings import TOPICS

from imc_lite.bench.findings import ask_closed, ask_open, facts

OPEN_SHARE = 0.5


def finding_questions(source: str, labels: Mapping, rng: np.random.Generator, count: int) -> list[tuple[str, str]]:
    """`count` pairs about what the labels state; one in five about the kind of picture or the part shown."""
    known = facts(source, labels)
    general = [t for t in ("kind", "organ") if t in known]
    special = [t for t in known if t not in general]
    pairs = []
    for _ in range(count):
        choice = general if not special or rng.random() < 0.2 else special
        topic = choice[rng.integers(len(choice))]
        asks = ask_open if rng.random() < OPEN_SHARE else ask_closed
        pairs.append(asks(TOPICS[topic], known[topic], rng))
    return pairs
