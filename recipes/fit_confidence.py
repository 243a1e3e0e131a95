"""How often the default model's answers are right, by what is known of them; and which kinds of picture it knows.

    python recipes/fit_confidence.py --data DATA --pictures runs/pictures --bundle BUNDLE \\
        -o imc_lite/assets/confidence.safetensors

Answers about the validation part of the training pictures, which no weight was trained on, clean and noisy, asked in
words of their own (`confidence_wordings.py`) and for a third in those of training. One half of the pictures, at random,
is fitted to; the other tests which limits on the risk can be promised. Clusters of known kinds are from at
most 200 pictures of each set that were trained on, at sizes as they are met.
"""

from __future__ import annotations

import argparse
import zlib
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
from confidence_wordings import FOREIGN, TOPICS
from sets import load_prepared, load_sets
from tqdm import tqdm
from wordings import TOPICS as TRAINED

from imc_lite.bench.data import Case
from imc_lite.bench.findings import ask_closed, ask_foreign, ask_open, facts
from imc_lite.images.load import load_image
from imc_lite.models.default.onnx import OrtMLLM
from imc_lite.noise import apply_as_met
from imc_lite.pdc.familiarity import pooled
from imc_lite.pdc.prototypes import Prototypes, load_prototypes
from imc_lite.trust.fit import fit_confidence
from imc_lite.trust.observe import Labelled, Views, facts_of, observe

OWN_WORDS = 0.7  # share of questions that are asked in other words than in training
MOST = 80  # validation pictures of a set
CLUSTERED = 200  # training pictures of a set


@cache
def opened(bundle: Path) -> tuple[OrtMLLM, Prototypes]:
    """The model, once in every process."""
    model = OrtMLLM(bundle)
    return model, load_prototypes(model.prototypes_file(), model.identity)


def ask(case: Case, rng: np.random.Generator) -> tuple[tuple[str, str], ...]:
    """Questions about a picture with their answers."""
    known, asked = facts(case.source, case.labels), []
    for topic, value in known.items():
        for form, put in (("open", ask_open), ("closed", ask_closed)):
            topics = TOPICS if rng.random() < OWN_WORDS else TRAINED
            if topic in topics and getattr(topics[topic], form):
                asked.append(put(topics[topic], value, rng))
    asked += [(q["question"], q["answer"]) for q in case.questions]
    return (*asked, ask_foreign(known["organ"], FOREIGN, rng))


def seed_of(case: Case) -> int:
    """What is drawn for a picture depends on the picture alone."""
    return zlib.crc32(f"{case.source}/{case.path.name}".encode())


def seen(task: tuple[Path, Case, int]) -> Views:
    """What comes of one validation picture."""
    bundle, case, number = task
    seed = seed_of(case)
    asked = Labelled(case.path, ask(case, np.random.default_rng(seed)))
    return observe(*opened(bundle), asked, seed, number, check_wordings=True)


def clean(task: tuple[Path, Case]) -> np.ndarray:
    """A training picture at a size as it is met, pooled: float64 [F]."""
    bundle, case = task
    met = apply_as_met(load_image(case.path), "clean", 0, seed_of(case))
    return pooled(opened(bundle)[0].perceive(met).tokens)


def some(cases: list[Case], most: int, seed: int) -> list[Case]:
    """So many of each set, at random."""
    by_set: dict[str, list[Case]] = {}
    for case in cases:
        by_set.setdefault(case.source, []).append(case)
    rng = np.random.default_rng(seed)
    return [mine[i] for mine in by_set.values() for i in rng.permutation(len(mine))[:most]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with all sets")
    parser.add_argument("--pictures", type=Path, required=True, help="folder of prepare_pictures.py")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    held = {(r.source, r.path.stem) for r in load_prepared(args.pictures)[0] if r.split == "val"}
    cases = load_sets(args.data, "train")
    apart = some([c for c in cases if (c.source, c.path.stem) in held], MOST, args.seed)
    trained = some([c for c in cases if (c.source, c.path.stem) not in held], CLUSTERED, args.seed)
    order = np.random.default_rng(args.seed).permutation(len(apart))
    with ProcessPoolExecutor(args.workers) as pool:

        def each(work, tasks):  # type: ignore[no-untyped-def]
            return list(tqdm(pool.map(work, tasks, chunksize=4), total=len(tasks), unit="picture"))

        pictures = np.stack(each(clean, [(args.bundle, case) for case in trained]))
        views: list[Views] = each(seen, [(args.bundle, apart[i], number) for number, i in enumerate(order)])
    fitted, control = views[: len(views) // 2], views[len(views) // 2 :]
    fit_confidence(
        [answer for view in fitted for answer in view.answers],
        [answer for view in control for answer in view.answers],
        pictures,
        np.concatenate([view.clean for view in fitted]),
        facts_of(opened(args.bundle)[0]),
        args.seed,
    ).save(args.out)


if __name__ == "__main__":
    main()
