"""What the default model's confidence is worth: on test pictures, in the benchmark's words, under noise of other
projects.

    pip install scikit-image torchio lm-polygraph && pip install --no-deps imagecorruptions
    python recipes/measure_confidence.py --data DATA --pictures runs/pictures --bundle BUNDLE \\
        -o recipes/results/confidence.json

Every picture as it is, at another size, under four generators of `others_noise.py`, one of `unseen_noise.py` and one
of the bank at severity 4. Nothing was fitted to these pictures, words or generators. Every answer is given twice, alone
and with its question asked in other words. Beside the confidence stand the estimators of lm-polygraph (Fadeeva et al.
2023) that need one answer, its probabilities and no other model: the library's own code, on the same answers. Its
Mahalanobis distance, which has one cluster, reads the same pooled tokens as ours. Strangers: each kind of picture when
what tells known kinds is fitted without it, and the pictures that come with scikit-image, which are of no known kind.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
import zlib
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
from confidence_worth import RISKS, Row, estimators, figures, of_lm_polygraph
from fit_confidence import CLUSTERED, MOST, clean, opened, some
from measure_generality import SEVERITIES, SIDES, ask_about, some_of_each
from others_noise import generators
from sets import load_prepared, load_sets
from tqdm import tqdm
from unseen_noise import generators as unseen_generators

from imc_lite.bench.data import Case
from imc_lite.bench.stats import Bootstrap
from imc_lite.errors import ImcError
from imc_lite.images.load import load_image
from imc_lite.images.resize import resize_picture, size_filling
from imc_lite.models.base import same_answer
from imc_lite.models.default.onnx import OrtMLLM
from imc_lite.noise import FURTHER_KINDS, IMAGE_KINDS, apply_as_met
from imc_lite.pdc.familiarity import pooled
from imc_lite.pipeline import IMC, MAX_NEW_TOKENS
from imc_lite.trust.assess import assess
from imc_lite.trust.confidence import Confidence, ceiling, load_confidence
from imc_lite.trust.fit import fit_familiarity

QUESTIONS, OTHERS = 4, 4
ASKED: set[tuple[str, str]] = set()  # of one process
FILMS = ("child_cxr", "nih_cxr", "hannover_cxr")  # one kind of picture
STRANGE = "What kind of picture is this?", "What part of the body is shown?", "Is there anything abnormal?"
PICTURES = (".png", ".jpg")


@cache
def answering(bundle: Path) -> IMC:
    """The model with its confidence, once in every process."""
    model, prototypes = opened(bundle)
    file = model.confidence_file()
    assert file is not None, "the bundle has no confidence"
    return IMC(model, prototypes, sms=False, confidence=load_confidence(file, model.identity, model.version))


def views(image: np.ndarray, name: str) -> list[tuple[str, int, str, np.ndarray]]:
    """Noise, severity, group and pixels of all views of a picture."""
    rng = np.random.default_rng([1, zlib.crc32(name.encode())])
    found, unseen, kinds = generators(), unseen_generators(), IMAGE_KINDS + FURTHER_KINDS

    def sized() -> np.ndarray:
        side = round(float(np.exp(rng.uniform(*np.log(SIDES)))))
        return resize_picture(image, size_filling(image.shape, side))

    def drawn(noises: dict, noise: str, group: str) -> tuple[str, int, str, np.ndarray]:
        severity = int(rng.choice(SEVERITIES))
        return noise, severity, group, noises[noise](sized(), severity, int(rng.integers(2**31)))

    out = [("clean", 0, "clean", image), ("clean", 0, "clean", sized())]
    out += [drawn(found, str(noise), "others' noise") for noise in rng.permutation(sorted(found))[:OTHERS]]
    out.append(drawn(unseen, str(rng.choice(sorted(unseen))), "noise that nobody looked at"))
    kind = str(rng.choice(kinds))
    return [*out, (kind, 4, "own noise, severity 4", apply_as_met(image, kind, 4, int(rng.integers(2**31))))]


def look(task: tuple[Path, int, Case, int]) -> list[Row]:
    """All answers about a picture."""
    bundle, picture, case, seed = task
    imc, rows = answering(bundle), []
    model = imc.model
    assert isinstance(model, OrtMLLM)
    rng = np.random.default_rng([seed, zlib.crc32(case.name.encode())])
    asked = ask_about(picture, case, seed)
    for noise, severity, group, pixels in views(load_image(case.path), case.name):
        began = time.perf_counter()
        seen = imc.see(pixels)
        looked, values = time.perf_counter() - began, pooled(seen.tokens)
        for i in rng.permutation(len(asked))[:QUESTIONS]:
            text, marks = asked[i].text, [time.perf_counter()]
            said = model.generate(text, seen.tokens, MAX_NEW_TOKENS)
            marks.append(time.perf_counter())
            known = (model, imc.confidence, text, said, seen.tokens, seen.report)
            trust = assess(*known)
            marks.append(time.perf_counter())
            again = assess(*known, wording=True)
            marks.append(time.perf_counter())
            wrote, first_time, second_time = (b - a for a, b in pairwise(marks))
            assert trust.confidence is not None and trust.image_reliance is not None and again.confidence is not None
            assert trust.token_probability is not None
            first = (text, said.text) not in ASKED
            ASKED.add((text, said.text))
            rows.append(
                Row(
                    picture, case.source, noise, severity, group, same_answer(said.text, asked[i].answer),
                    trust.confidence, again.confidence,
                    math.nan if again.rewording is None else 1 - again.rewording.share,
                    trust.token_probability, trust.image_reliance.same_without, first, first_time, second_time,
                    looked + wrote, values, of_lm_polygraph(model, text, seen.tokens, said.text),
                )
            )  # fmt: skip
    return rows


def strangers(
    rows: list[Row],
    confidence: Confidence,
    pictures: np.ndarray,
    checked: np.ndarray,
    sources: tuple[list, list],
    risk: float,
) -> dict[str, dict[str, float]]:
    """Of answers about clean pictures, the share that is declined where their kind is left out of what tells known
    kinds, and of the kinds that are left in."""
    kinds = [FILMS if s == FILMS[0] else (s,) for s in dict.fromkeys(sources[0]) if s not in (*FILMS[1:], "vqa_rad")]
    asked = [r for r in rows if r.group == "clean"]
    values = np.stack([r.pooled for r in asked])
    before = ceiling(confidence.familiarity.probability(confidence.familiarity.of_pooled(values)))
    found = {}
    for kind in kinds:
        # VQA-RAD has films and slices of heads too: a film is of no unknown kind while it is there.
        out = (*kind, "vqa_rad") if kind == FILMS or kind == ("brain_mri",) else kind
        kept, left = (~np.isin(s, out) for s in sources)
        told = fit_familiarity(pictures[kept], checked[left], checked[left], 0)
        most = ceiling(told.probability(told.of_pooled(values)))
        p = np.array([r.confidence for r in asked]) / np.maximum(before, 1e-9) * most
        strange, known = (np.array([(r.source in some) for r in asked]) for some in (kind, out))
        declined = 1 - p > risk
        found[" and ".join(kind)] = {
            "answers": int(strange.sum()),
            "declined": round(float(declined[strange].mean()), 4),
            "known_kinds_declined": round(float(declined[~known].mean()), 4),
        }
    return found


def of_no_kind(imc: IMC, risk: float) -> dict[str, object]:
    """The pictures that come with scikit-image, each asked three questions: the share of answers that is declined."""
    place = find_spec("skimage")
    assert place is not None and place.origin is not None
    declined: dict[str, float] = {}
    for file in sorted((Path(place.origin).parent / "data").iterdir()):
        if file.suffix not in PICTURES:
            continue
        try:
            pixels = load_image(file)
        except ImcError:
            continue
        given = [imc.answer(pixels, question, max_risk=risk).answer is not None for question in STRANGE]
        declined[file.name] = round(1 - sum(given) / len(given), 4)
    return {"pictures": len(declined), "declined": round(statistics.mean(declined.values()), 4), "by_picture": declined}


def cost(shares: Iterable[float]) -> float:
    """Median."""
    return round(statistics.median(shares), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with all sets")
    parser.add_argument("--pictures", type=Path, required=True, help="folder of prepare_pictures.py")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=16, help="test pictures of each set")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    cases = some_of_each(load_sets(args.data, "test"), args.limit)
    held = {(r.source, r.path.stem) for r in load_prepared(args.pictures)[0] if r.split == "val"}
    training = load_sets(args.data, "train")
    apart = some([c for c in training if (c.source, c.path.stem) in held], MOST, args.seed)
    trained = some([c for c in training if (c.source, c.path.stem) not in held], CLUSTERED, args.seed)
    with ProcessPoolExecutor(args.workers) as pool:
        tasks = [(args.bundle, i, case, args.seed) for i, case in enumerate(cases)]
        rows = [row for some_rows in tqdm(pool.map(look, tasks), total=len(tasks), unit="picture") for row in some_rows]
        known, checked = (
            np.stack(list(pool.map(clean, [(args.bundle, case) for case in some_cases], chunksize=8)))
            for some_cases in (trained, apart)
        )
    imc = answering(args.bundle)
    assert imc.confidence is not None and imc.confidence.reworded is not None
    reworded = imc.confidence.reworded
    bootstrap = Bootstrap(len(cases), args.seed)
    noisy = [r for r in rows if r.severity]
    groups = {"all": rows, "severity 4": [r for r in noisy if r.severity == 4]}
    groups |= {name: [r for r in rows if r.group == name] for name in dict.fromkeys(r.group for r in rows)}
    sources = ([c.source for c in trained], [c.source for c in apart])
    report = {
        "command": "python recipes/measure_confidence.py --data DATA --pictures runs/pictures --bundle BUNDLE "
        "-o recipes/results/confidence.json",
        "model": imc.model.id,
        "version": imc.model.version,
        "confidence": imc.confidence.digest()[:12],
        "least_limit": imc.confidence.rule.least_limit,
        "least_limit_reworded": reworded.least_limit,
        "seed": args.seed,
        "pictures": len(cases),
        "versions": {n: version(n) for n in ("scikit-image", "imagecorruptions", "torchio", "lm-polygraph")},
        "groups": {name: figures(some_rows, bootstrap) for name, some_rows in groups.items()},
        "risk_coverage_of_estimators": {
            name: estimators(some_rows, imc.confidence, known) for name, some_rows in groups.items()
        },
        "strangers_at_max_risk_0.3": strangers(rows, imc.confidence, known, checked, sources, RISKS[-1]),
        "of_no_known_kind_at_max_risk_0.3": of_no_kind(imc, RISKS[-1]),
        "cost": {
            "first": cost(r.assess / r.rest for r in rows if r.first),
            "again": cost(r.assess / r.rest for r in rows if not r.first),
            "share_first": round(statistics.mean(r.first for r in rows), 4),
            # What is said without the picture is known by then.
            "reworded": cost(r.assess_reworded / r.rest for r in rows),
        },
    }
    args.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
