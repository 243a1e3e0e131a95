"""The benchmark edition that ships with the package: test pictures as small JPEG files, and their questions.

python recipes/build_bench.py --data DATA -o imc_lite/assets/bench
"""

from __future__ import annotations

import argparse
import io
import json
import zlib
from collections import Counter
from pathlib import Path

from PIL import Image

from imc_lite.bench.data import Case, load_cases
from imc_lite.files import write_atomically
from imc_lite.images.load import load_image

SIDE, QUALITY = 640, 85
QUICK = {"vqa_rad": 8, "bccd": 6, "hannover_cxr": 6}
KEPT = ("organ", "modality", "plane", "projection", "boxes")
LICENCES = """\
The pictures in this folder, resized so that the longer side is at most 640 pixels and saved again as JPEG.

vqa_rad/       VQA-RAD, CC0 1.0. Lau et al., Scientific Data 2018, https://doi.org/10.1038/sdata.2018.251
               (pictures from MedPix). Questions and answers in bench.json, answers in lower case without punctuation.
bccd/          BCCD Dataset, MIT licence, below. https://github.com/Shenggan/BCCD_Dataset
hannover_cxr/  COVID-19 Image Repository, Institute for Diagnostic and Interventional Radiology, Hannover Medical
               School. Winther et al., https://doi.org/10.25835/0090041. Licensed under the Creative Commons
               Attribution 3.0 Unported licence, https://creativecommons.org/licenses/by/3.0/. Changes: resized,
               saved as JPEG; labels reduced to the projection.

"""


def small(path: Path) -> bytes:
    """A picture as JPEG, its longer side at most 640."""
    pixels = load_image(path)
    picture = Image.fromarray(pixels[..., 0] if (pixels[..., :1] == pixels).all() else pixels)
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return buffer.getvalue()


def quick(cases: list[Case]) -> list[str]:
    """A fixed draw of every source, its kinds of picture in turn."""
    names = []
    for source, count in QUICK.items():
        ranked, seen = [], Counter()
        for case in sorted((c for c in cases if c.source == source), key=draw):
            kind = tuple(case.labels.get(k) for k in ("organ", "modality", "projection"))
            ranked.append((seen[kind], draw(case), f"{source}/{case.path.stem}.jpg"))
            seen[kind] += 1
        names += [name for *_, name in sorted(ranked)[:count]]
    return names


def draw(case: Case) -> int:
    """A number that orders pictures at random, the same at every call."""
    return zlib.crc32(case.path.name.encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    cases, rows = load_cases(args.data, "test"), []
    for case in cases:
        name = f"{case.source}/{case.path.stem}.jpg"
        (args.out / case.source).mkdir(parents=True, exist_ok=True)
        data = small(case.path)
        write_atomically(args.out / name, lambda file, data=data: file.write(data))
        labels = {k: case.labels[k] for k in KEPT if case.labels.get(k) is not None}
        rows.append({"image": name, "source": case.source, "labels": labels, "questions": list(case.questions)})
    held_out = [c.path.name for c in cases if c.source == "vqa_rad"]
    facts = {"quick": quick(cases), "held_out": held_out, "cases": rows}
    text = json.dumps(facts, ensure_ascii=False, separators=(",", ":")).replace('{"image"', '\n{"image"') + "\n"
    write_atomically(args.out / "bench.json", lambda file: file.write(text.encode()))
    licences = LICENCES + (args.data / "bccd" / "LICENSE").read_text(encoding="utf-8")
    write_atomically(args.out / "LICENSE", lambda file: file.write(licences.encode()))


if __name__ == "__main__":
    main()
