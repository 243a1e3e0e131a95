"""Score a bundle on findings of test pictures it was never trained on, asked in other words than in training.

    python recipes/evaluate_findings.py --data DATA --bundle BUNDLE -o recipes/results/findings.json

Balanced accuracy: the mean over the true values of the share answered right, an answer being right where it is the
expected one word for word (what the model writes is not written out: all its words are checked in one pass). Beside
it the same questions about another picture of the same set (about the kind of picture: of another kind), and about a
blank one. Intervals: 95 % percentile bootstrap over pictures.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sets import load_sets
from tqdm import tqdm

from imc_lite.bench.data import Case
from imc_lite.bench.findings import FOREIGN, TOPICS, ask_closed, ask_foreign, ask_open, facts
from imc_lite.bench.stats import Bootstrap, percentiles
from imc_lite.images.load import load_image
from imc_lite.models.default.onnx import OrtMLLM

SHOWN = ("own", "other", "blank")
OWN_QUESTIONS = 10  # of VQA-RAD, about one picture


@dataclass(frozen=True)
class Question:
    """One question of the run."""

    picture: int
    row: str  # of the table
    value: str  # true value, over which the row is balanced
    text: str
    answer: str


def row_of(topic: str, source: str) -> str:
    """The table's row that a topic belongs to."""
    return f"pneumonia, {source}" if topic == "pneumonia" else topic


def questions_of(picture: int, case: Case, rng: np.random.Generator) -> Iterator[tuple[str, Question]]:
    """At most a dozen questions about one picture, each with its form (open, closed)."""
    for q in case.questions[:OWN_QUESTIONS]:
        form = "closed" if q["closed"] else "open"
        yield form, Question(picture, f"vqa_rad {form}", "", q["question"], q["answer"])
    known = facts(case.source, case.labels)
    for topic, value in known.items():
        for form, ask in (("open", ask_open), ("closed", ask_closed)):
            if topic in TOPICS and getattr(TOPICS[topic], form):
                yield form, Question(picture, row_of(topic, case.source), value, *ask(TOPICS[topic], value, rng))
    yield "open", Question(picture, "not shown", "", *ask_foreign(known["organ"], FOREIGN, rng))


def others(cases: list[Case], rng: np.random.Generator) -> tuple[list[int], list[int]]:
    """For every picture another one of its set, and one of another kind."""
    kinds = [facts(c.source, c.labels).get("kind", "") for c in cases]
    same, foreign = list(range(len(cases))), []
    for source in dict.fromkeys(c.source for c in cases):
        mine = [i for i, c in enumerate(cases) if c.source == source]
        turned = rng.permutation(mine)
        for i, j in zip(turned, np.roll(turned, 1), strict=True):
            same[i] = int(j)
    for kind in kinds:
        choice = [j for j, other in enumerate(kinds) if other != kind]
        foreign.append(int(choice[rng.integers(len(choice))]))
    return same, foreign


def ask_all(model: OrtMLLM, asked: list[Question], shown: list[int], tokens: list[np.ndarray], name: str) -> list[bool]:
    """Whether each question is answered right about the picture shown in its place; one pass a picture."""
    together: dict[int, list[int]] = defaultdict(list)
    for number, picture in enumerate(shown):
        together[picture].append(number)
    right = [False] * len(asked)
    for picture, numbers in tqdm(together.items(), desc=name):
        hits = model.agrees([(asked[n].text, asked[n].answer) for n in numbers], tokens[picture])
        for n, hit in zip(numbers, hits, strict=True):
            right[n] = hit
    return right


def blank_answers(model: OrtMLLM, asked: list[Question], blank: np.ndarray) -> list[bool]:
    """The same about a blank picture; every distinct question is asked once."""
    pairs = sorted({(q.text, q.answer) for q in asked})
    right = dict(zip(pairs, model.agrees(pairs, blank), strict=True))
    return [right[q.text, q.answer] for q in asked]


def balanced(asked: list[Question], hits: np.ndarray, bootstrap: Bootstrap) -> tuple[float, list[float]]:
    """Mean over the true values of the share answered right, and its interval."""
    values = np.array([q.value for q in asked])
    owners = np.array([q.picture for q in asked])
    parts, samples = [], []
    for value in sorted(set(values)):
        mine = values == value
        parts.append(hits[mine].mean())
        samples.append(bootstrap.means(hits[mine], owners[mine]))
    return round(float(np.mean(parts)), 4), percentiles(np.mean(samples, 0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with all sets")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--limit", type=int, default=None, help="pictures of each set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    by_set: dict[str, list[Case]] = defaultdict(list)
    for case in load_sets(args.data, "test"):
        by_set[case.source].append(case)
    # Spread over a set, whose files are often sorted by label.
    cases = [c for some in by_set.values() for c in some[:: max(1, len(some) // (args.limit or len(some)))]]
    model = OrtMLLM(args.bundle, threads=args.threads)
    tokens = [model.perceive(load_image(c.path)).tokens for c in tqdm(cases, desc="encode")]
    blank = model.perceive(np.zeros((320, 320, 3), np.uint8)).tokens
    formed = [pair for i, c in enumerate(cases) for pair in questions_of(i, c, rng)]
    forms, asked = np.array([f for f, _ in formed]), [q for _, q in formed]
    same, foreign = others(cases, rng)
    hits = {
        "own": ask_all(model, asked, [q.picture for q in asked], tokens, "own"),
        "other": ask_all(
            model, asked, [(foreign if q.row == "kind" else same)[q.picture] for q in asked], tokens, "other"
        ),
        "blank": blank_answers(model, asked, blank),
    }
    bootstrap = Bootstrap(len(cases), args.seed)
    table: dict[str, dict] = {}
    for row in sorted({q.row for q in asked}):
        for form in ("", "open", "closed"):
            chosen = [i for i, q in enumerate(asked) if q.row == row and form in ("", forms[i])]
            if not chosen or (form and (row.startswith("vqa_rad") or row == "not shown")):
                continue
            entry = table[f"{row} {form}".strip()] = {"n": len(chosen)}
            for name in SHOWN:
                scores = np.array([float(hits[name][i]) for i in chosen])
                entry[name], entry[f"{name}_95ci"] = balanced([asked[i] for i in chosen], scores, bootstrap)
    report = {
        "command": "python recipes/evaluate_findings.py --data DATA --bundle BUNDLE -o recipes/results/findings.json",
        "model": model.id,
        "version": model.version,
        "seed": args.seed,
        "limit": args.limit,
        "images": len(cases),
        "questions": len(asked),
        "rows": table,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    for row, entry in table.items():
        print(row, *(entry[name] for name in ("n", *SHOWN)), sep="\t")


if __name__ == "__main__":
    main()
