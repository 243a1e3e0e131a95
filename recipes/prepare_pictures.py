"""Training pictures of all sets, re-saved small, with everything that training needs in one file.

    python recipes/prepare_pictures.py --data DATA -o runs/pictures

Pictures of the training parts only, never of a test part. A tenth of their groups becomes the validation part, for
learning curves and every choice. A group is a patient where the set says so. Elsewhere neighbours in the numbering
(which follows patients) and pictures that look nearly alike are joined, because several slices or photographs of one
patient would otherwise stand on both sides.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import numpy as np
from PIL import Image
from sets import INDEX, load_sets

from imc_lite.bench.data import Case, normalize
from imc_lite.images.load import load_image
from imc_lite.images.resize import resize_picture, size_within

SIDE = 352  # longest side; the encoder looks at 320, the rest is for enlarging
BLOOD_SIDE = 448  # blood films are enlarged most
QUALITY = 80
THUMB = 20
PATIENTS_KNOWN = ("child_cxr", "nih_cxr")
NUMBERED = ("brain_mri", "foot_photo")
NEIGHBOURS = 10  # pictures numbered in the same ten are one group
ALIKE = 0.9  # correlation of two thumbnails' fine structure from which pictures count as near twins
MOST_TOGETHER = 40  # a larger knot of near twins is a look of the set, not a patient


def save_small(image: np.ndarray, path: Path, side: int) -> None:
    """uint8 [H, W, 3] as JPEG, its longer side at most `side`; grey pictures as grey."""
    size = size_within(image.shape, side)
    small = Image.fromarray(image if size == image.shape[:2] else resize_picture(image, size))
    grey = bool((image == image[..., :1]).all())
    path.parent.mkdir(parents=True, exist_ok=True)
    (small.convert("L") if grey else small).save(path, quality=QUALITY, optimize=True)


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Fine structure at thumbnail size, float32 [400], mean 0, length 1: what near twins share."""
    grey = Image.fromarray(image).convert("L").resize((THUMB, THUMB), Image.Resampling.BOX)
    values = np.asarray(grey, np.float32)
    coarse = np.asarray(
        grey.resize((4, 4), Image.Resampling.BOX).resize((THUMB, THUMB), Image.Resampling.BICUBIC), np.float32
    )
    fine = (values - coarse).ravel()
    fine -= fine.mean()
    return fine / max(float(np.linalg.norm(fine)), 1e-6)


def first_group(case: Case) -> str:
    """The patient, or the ten of the numbering, or the picture alone."""
    if case.source in PATIENTS_KNOWN:
        return str(case.labels["group"])
    if case.source in NUMBERED:
        prefix, number = re.fullmatch(r"(.*?)(\d+)", case.path.stem).groups()
        return f"{prefix}{int(number) // NEIGHBOURS}x"
    return case.path.stem


def join_twins(groups: list[str], thumbs: np.ndarray) -> list[str]:
    """Groups of one set with those of near twins joined, unless that knots too many pictures together."""
    owner = {g: g for g in groups}

    def root(name: str) -> str:
        while owner[name] != name:
            name = owner[name]
        return name

    sizes = {g: groups.count(g) for g in owner}
    near = np.argwhere(np.triu(thumbs @ thumbs.T > ALIKE, 1))
    for i, j in near:
        a, b = root(groups[i]), root(groups[j])
        if a != b and sizes[a] + sizes[b] <= MOST_TOGETHER:
            owner[b] = a
            sizes[a] += sizes[b]
    return [root(g) for g in groups]


def validation_groups(groups: list[str], share: float, rng: np.random.Generator) -> set[str]:
    """Whole groups at random until they hold this share of the pictures."""
    chosen: set[str] = set()
    held = 0
    for i in rng.permutation(len(names := sorted(set(groups)))):
        size = groups.count(names[i])
        if held + size <= share * len(groups):
            chosen.add(names[i])
            held += size
    return chosen


def prepare_set(cases: list[Case], out: Path, share: float, rng: np.random.Generator) -> list[dict]:
    """Rows of one set's pictures, saved under `out`."""
    rows, thumbs = [], []
    for case in cases:
        image = load_image(case.path)
        name = f"{case.source}/{case.path.stem}.jpg"
        save_small(image, out / name, BLOOD_SIDE if case.source == "bccd" else SIDE)
        thumbs.append(thumbnail(image))
        labels = {k: v for k, v in case.labels.items() if k not in ("image", "split", "group")}
        row = {"image": name, "source": case.source, "labels": labels, "size": [image.shape[1], image.shape[0]]}
        rows.append({**row, "questions": list(case.questions), "group": first_group(case)})
    groups = [r["group"] for r in rows]
    if cases[0].source not in PATIENTS_KNOWN:
        groups = join_twins(groups, np.stack(thumbs))
    held = validation_groups(groups, share, rng)
    for row, group in zip(rows, groups, strict=True):
        row |= {"group": group, "split": "val" if group in held else "train"}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with all sets")
    parser.add_argument("--share", type=float, default=0.1, help="of the training pictures, for validation")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/pictures"))
    args = parser.parse_args()
    cases = load_sets(args.data, "train")
    rows: list[dict] = []
    for number, source in enumerate(dict.fromkeys(c.source for c in cases)):
        rng = np.random.default_rng((args.seed, number))
        found = prepare_set([c for c in cases if c.source == source], args.out, args.share, rng)
        held = sum(r["split"] == "val" for r in found)
        groups = len({r["group"] for r in found})
        print(json.dumps({"set": source, "pictures": len(found), "groups": groups, "validation": held}), flush=True)
        rows += found
    slake = json.loads((args.data / "slake_text/train.json").read_text())
    asked = sorted({" ".join(r["question"].split()) for r in slake if normalize(r["question"])})
    index = {"seed": args.seed, "rows": rows, "slake": asked}
    (args.out / INDEX).write_text(json.dumps(index, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
