"""Training and test material: images with questions, and text-only skills.

Everything is drawn from a numpy Generator, so a seed fixes every sample. Image noise never enters:
augmentation is geometric alone, because robustness has to come from calibration, not from training.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from templates import cell_truths, image_questions

from imc_lite.bench.data import Case
from imc_lite.bench.templates import cell_questions, truths
from imc_lite.models.default.spec import ENCODER
from imc_lite.noise.text import TEXT_KINDS, apply_to_text

ASSESS = "Is this question damaged? {}"
REPAIR = "Repair this question: {}"
SIDE = ENCODER.side


@dataclass(frozen=True)
class Pack:
    """One image view (or none) and independent question-answer pairs about it."""

    image: np.ndarray | None  # uint8 [320, 320, 3]
    pairs: tuple[tuple[str, str], ...]
    truths: dict[str, str]


def load_square(path: Path, side: int = 480) -> np.ndarray:
    """The image on a black square, uint8 [side, side, 3], so that augmentation is cheap."""
    image = Image.open(path).convert("RGB")
    longest = max(image.size)
    square = Image.new("RGB", (longest, longest))
    square.paste(image, ((longest - image.width) // 2, (longest - image.height) // 2))
    return np.asarray(square.resize((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0))


def view(square: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A geometric view, uint8 [320, 320, 3]: a quarter untouched, else turned, scaled and shifted a little."""
    image = Image.fromarray(square)
    if rng.random() < 0.25:
        return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    angle, scale = np.deg2rad(rng.uniform(-8, 8)), rng.uniform(0.88, 1.1) * square.shape[0] / SIDE
    aspect = rng.uniform(0.94, 1.06)
    shift = rng.uniform(-0.05, 0.05, 2) * square.shape[0]
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    a, b, d, e = cos * aspect, -sin, sin * aspect, cos
    centre = square.shape[0] / 2
    c, f = centre + shift[0] - (a + b) * SIDE / 2, centre + shift[1] - (d + e) * SIDE / 2
    return np.asarray(
        image.transform((SIDE, SIDE), Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BICUBIC)
    )


def cell_view(case: Case, image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, list]:
    """A crop or the whole of a blood-cell picture, mirrored at random, with the boxes that remain in it.

    Returns uint8 [320, 320, 3] on a black square, and (kind, centre x, centre y) in 0-1 of the crop.
    """
    height, width = image.shape[:2]
    size = rng.uniform(0.35, 1.0) if rng.random() < 0.6 else 1.0
    x0, y0 = rng.uniform(0, 1 - size, 2)
    crop = Image.fromarray(image).crop(
        tuple(round(v) for v in (x0 * width, y0 * height, (x0 + size) * width, (y0 + size) * height))
    )
    kept = []
    for kind, bx0, by0, bx1, by1 in case.labels["boxes"]:
        cx, cy = ((bx0 + bx1) / 2 - x0) / size, ((by0 + by1) / 2 - y0) / size
        if 0 < cx < 1 and 0 < cy < 1:
            kept.append([kind, cx, cy])
    if rng.random() < 0.5:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        kept = [[k, 1 - x, y] for k, x, y in kept]
    if rng.random() < 0.5:
        crop = crop.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        kept = [[k, x, 1 - y] for k, x, y in kept]
    longest = max(crop.size)
    square = Image.new("RGB", (longest, longest))
    square.paste(crop, ((longest - crop.width) // 2, (longest - crop.height) // 2))
    return np.asarray(square.resize((SIDE, SIDE), Image.Resampling.BICUBIC)), kept


def text_pairs(questions: list[str], rng: np.random.Generator, count: int) -> tuple[tuple[str, str], ...]:
    """Assessment and repair pairs; a third of the repairs meet a clean question and must leave it alone."""
    pairs = []
    for _ in range(count):
        clean = questions[rng.integers(len(questions))]
        kind = TEXT_KINDS[rng.integers(len(TEXT_KINDS))]
        bad = apply_to_text(clean, kind, int(rng.integers(1, 6)), int(rng.integers(2**31)))
        if rng.random() < 0.35:
            bad = bad if rng.random() < 0.5 else clean
            pairs.append((ASSESS.format(bad), "no" if bad == clean else "yes"))
        else:
            bad = clean if rng.random() < 0.33 else bad
            pairs.append((REPAIR.format(bad), clean))
    return tuple(pairs)


def repair_questions(data: Path, cases: list[Case]) -> list[str]:
    """Unique clean questions for the text skills: SLAKE train and the given VQA-RAD cases."""
    slake = [row["question"] for row in json.loads((data / "slake_text/train.json").read_text())]
    return sorted({" ".join(q.split()) for q in slake} | {q["question"] for c in cases for q in c.questions})


class PackMaker:
    """Turns cases into packs; a pack depends on the seed and its index alone, so a run resumes anywhere."""

    def __init__(self, data: Path, cases: list[Case], mix: dict[str, float], total: int, seed: int) -> None:
        self.cases = {s: [c for c in cases if c.source == s] for s in ("vqa_rad", "hannover_cxr", "bccd")}
        self.text = repair_questions(data, cases)
        self.seed = seed
        self.squares: dict[Path, np.ndarray] = {}
        self.plan: list[tuple[str, Case | None]] = []
        rng = np.random.default_rng(seed)
        weights = np.array(list(mix.values())) / sum(mix.values())
        queues: dict[str, list[Case]] = {source: [] for source in self.cases}
        for source in rng.choice(list(mix), size=total, p=weights):
            if source == "text":
                self.plan.append((source, None))
                continue
            if not queues[source]:  # shuffled epochs: every image is seen equally often
                queues[source] = [self.cases[source][i] for i in rng.permutation(len(self.cases[source]))]
            self.plan.append((source, queues[source].pop()))

    def make(self, index: int) -> Pack:
        """The pack of this index."""
        rng = np.random.default_rng((self.seed, index))
        source, case = self.plan[index]
        if case is None:
            return Pack(None, text_pairs(self.text, rng, 5), {})
        return self._cells(case, rng) if source == "bccd" else self._radiology(case, rng)

    def _radiology(self, case: Case, rng: np.random.Generator) -> Pack:
        if case.path not in self.squares:
            self.squares[case.path] = load_square(case.path)
        own = [(q["question"], q["answer"]) for q in case.questions]
        own = [own[i] for i in rng.permutation(len(own))[:9]]
        extra = image_questions(case.source, case.labels, rng, 3 if own else 5)
        return Pack(view(self.squares[case.path], rng), tuple(own + extra), truths(case.source, case.labels))

    def _cells(self, case: Case, rng: np.random.Generator) -> Pack:
        if case.path not in self.squares:
            self.squares[case.path] = np.asarray(Image.open(case.path).convert("RGB"))
        image, kept = cell_view(case, self.squares[case.path], rng)
        pairs = image_questions("bccd", {}, rng, 1) + cell_questions(kept, rng, 6)
        return Pack(image, tuple(pairs), truths("bccd", {}) | cell_truths(kept))
