"""What PDC gives back under noise that other projects wrote, at other sizes, over test pictures of every set.

    pip install scikit-image torchio && pip install --no-deps imagecorruptions
    python recipes/measure_generality.py --data DATA --bundle BUNDLE -o recipes/results/generality.json

Every picture under every generator of `others_noise.py`, at a severity of 2 to 5 and with a longer side of 224 to 1,500
pixels that are drawn for each. The questions are those of `evaluate_findings.py`, worded otherwise than in training.
Clean is the picture as it is in its set. Intervals: 95 % percentile bootstrap over pictures.
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from evaluate_findings import Question, questions_of
from others_noise import KINDS, Noise, generators
from sets import load_sets
from tqdm import tqdm

from imc_lite.bench.data import Case
from imc_lite.bench.stats import Bootstrap, percentiles
from imc_lite.images.load import load_image
from imc_lite.images.resize import resize_picture, size_filling
from imc_lite.models.base import MLLM
from imc_lite.models.default.onnx import OrtMLLM
from imc_lite.pdc.prototypes import Prototypes, load_prototypes
from imc_lite.pdc.treat import treat_picture

SIDES = 224, 1500
SEVERITIES = 2, 3, 4, 5
QUESTIONS = 6  # about a picture at most
# Told apart by their grain alone, which shrinking takes away.
FAMILY = ("gaussian", "speckle", "impulse")


@dataclass(frozen=True)
class Row:
    """One picture under one noise.

    picture: its number; source: its set.
    noise: name of the generator, or "clean" for a picture that is only another size.
    severity, side: as drawn.
    verdict: kind of noise that was named.
    touched: whether the tokens were changed.
    clean, plain, pdc: which questions are answered right, of the picture as it is in its set, noisy, and with PDC.
    """

    picture: int
    source: str
    noise: str
    severity: int
    side: int
    verdict: str
    touched: bool
    clean: tuple[bool, ...]
    plain: tuple[bool, ...]
    pdc: tuple[bool, ...]


def some_of_each(cases: list[Case], limit: int) -> list[Case]:
    """So many pictures of each set, spread over it: files are often sorted by label."""
    by_set: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        by_set[case.source].append(case)
    return [c for some in by_set.values() for c in some[:: max(1, len(some) // limit)][:limit]]


def ask_about(picture: int, case: Case, seed: int) -> list[Question]:
    """At most six questions about one picture."""
    rng = np.random.default_rng([seed, zlib.crc32(case.name.encode())])
    asked = [question for _, question in questions_of(picture, case, rng)]
    return [asked[i] for i in sorted(rng.permutation(len(asked))[:QUESTIONS])]


def look(
    model: MLLM,
    prototypes: Prototypes,
    picture: int,
    case: Case,
    asked: list[Question],
    noises: Mapping[str, Noise],
    seed: int,
) -> Iterator[Row]:
    """A picture clean and under every noise."""
    pairs = [(q.text, q.answer) for q in asked]
    image = load_image(case.path)
    clean = tuple(model.agrees(pairs, model.perceive(image).tokens))
    for name, noise in (("clean", None), *noises.items()):
        rng = np.random.default_rng([seed, zlib.crc32(f"{name} {case.name}".encode())])
        severity, side = int(rng.choice(SEVERITIES)), round(float(np.exp(rng.uniform(*np.log(SIDES)))))
        pixels = resize_picture(image, size_filling(image.shape, side))
        if noise is not None:
            pixels = noise(pixels, severity, int(rng.integers(2**31)))
        perception = model.perceive(pixels)
        seen = treat_picture(model, prototypes, pixels, perception)
        assert seen.report.noise is not None, "prototypes name a noise"
        touched = not np.array_equal(seen.tokens, perception.tokens)
        plain = tuple(model.agrees(pairs, perception.tokens))
        pdc = tuple(model.agrees(pairs, seen.tokens)) if touched else plain
        kind = seen.report.noise.kind
        yield Row(picture, case.source, name, severity, side, kind, touched, clean, plain, pdc)


class Table:
    """Figures over rows."""

    def __init__(self, rows: list[Row], pictures: int, seed: int) -> None:
        """Of so many pictures; `seed` draws the samples."""
        self.rows, self.bootstrap = rows, Bootstrap(pictures, seed)

    def figures(self, rows: list[Row]) -> dict[str, object]:
        """Accuracy clean, noisy and with PDC, what comes back of the loss, and the gain's interval."""
        owners = np.array([r.picture for r in rows for _ in r.clean])
        clean, plain, pdc = (
            np.array([float(hit) for r in rows for hit in getattr(r, arm)]) for arm in ("clean", "plain", "pdc")
        )
        lost, gained = (self.bootstrap.means(v, owners) for v in (clean - plain, pdc - plain))
        loss, gain = float((clean - plain).mean()), float((pdc - plain).mean())
        found: dict[str, object] = {
            "views": len(rows),
            "answers": len(owners),
            "clean": round(float(clean.mean()), 4),
            "noisy": round(float(plain.mean()), 4),
            "pdc": round(float(pdc.mean()), 4),
            "gain": round(gain, 4),
            "gain_95ci": percentiles(gained),
        }
        if percentiles(lost)[0] > 0:  # a share of a loss that may be none says nothing
            shares = gained[lost > 0] / lost[lost > 0]
            found |= {"recovered": round(gain / loss, 4), "recovered_95ci": percentiles(shares)}
        return found

    def of(self, name: str) -> dict[str, dict[str, object]]:
        """The figures of the noisy rows, by a field of theirs."""
        groups: dict[str, list[Row]] = defaultdict(list)
        for row in self.rows:
            if row.noise != "clean":
                groups[str(getattr(row, name))].append(row)
        return {value: self.figures(rows) for value, rows in sorted(groups.items())}


def by_question(table: Table, asked: dict[int, list[Question]]) -> dict[str, dict[str, object]]:
    """The figures of the noisy rows for every row of questions."""
    topics = sorted({q.row for some in asked.values() for q in some})
    found = {}
    for topic in topics:
        rows = []
        for row in table.rows:
            mine = [i for i, q in enumerate(asked[row.picture]) if q.row == topic]
            if mine and row.noise != "clean":
                cut = {arm: tuple(getattr(row, arm)[i] for i in mine) for arm in ("clean", "plain", "pdc")}
                rows.append(Row(**{**vars(row), **cut}))
        if rows:
            found[topic] = table.figures(rows)
    return found


def named(rows: list[Row]) -> dict[str, object]:
    """How often noise of a kind that the bank has gets its name, and what the others are called."""
    known = [r for r in rows if r.noise in KINDS]
    right = [r.verdict == KINDS[r.noise] for r in known]
    family = [(r.verdict in FAMILY) if KINDS[r.noise] in FAMILY else hit for r, hit in zip(known, right, strict=True)]
    clean = [r.verdict == "clean" for r in rows if r.noise == "clean"]
    verdicts: dict[str, Counter] = defaultdict(Counter)
    for row in rows:
        verdicts[row.noise][row.verdict] += 1
    return {
        "clean_called_clean": round(float(np.mean(clean)), 4),
        "right": round(float(np.mean(right)), 4),
        "right_or_of_its_family": round(float(np.mean(family)), 4),
        "verdicts": {noise: dict(counts.most_common()) for noise, counts in sorted(verdicts.items())},
    }


def report(rows: list[Row], asked: dict[int, list[Question]], seed: int) -> dict[str, object]:
    """All figures."""
    table = Table(rows, len(asked), seed)
    noisy = [r for r in rows if r.noise != "clean"]
    by_noise, by_set = table.of("noise"), table.of("source")
    worse = [n for n, found in {**by_noise, **by_set}.items() if found["gain_95ci"][1] < 0]  # type: ignore[index]
    return {
        "pictures": len(asked),
        "clean": table.figures([r for r in rows if r.noise == "clean"]),
        "all": table.figures(noisy),
        "of_the_banks_kinds": table.figures([r for r in noisy if r.noise in KINDS]),
        "significantly_worse": worse,
        "by_noise": by_noise,
        "by_set": by_set,
        "by_severity": table.of("severity"),
        "by_question": by_question(table, asked),
        "named": named(rows),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with all sets")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=8, help="pictures of each set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    model = OrtMLLM(args.bundle)
    prototypes = load_prototypes(model.prototypes_file(), model.identity)
    cases = some_of_each(load_sets(args.data, "test"), args.limit)
    asked = {i: ask_about(i, case, args.seed) for i, case in enumerate(cases)}
    rows = [
        row
        for i, case in enumerate(tqdm(cases, unit="picture"))
        for row in look(model, prototypes, i, case, asked[i], generators(), args.seed)
    ]
    command = "python recipes/measure_generality.py --data DATA --bundle BUNDLE -o recipes/results/generality.json"
    facts = {
        "command": command,
        "model": model.id,
        "version": model.version,
        "seed": args.seed,
        "generators_of": {name: version(name) for name in ("scikit-image", "imagecorruptions", "torchio")},
    }
    args.out.write_text(json.dumps(facts | report(rows, asked, args.seed), indent=1) + "\n")


if __name__ == "__main__":
    main()
