"""The benchmark edition that ships with the package: test pictures as small JPEG files, and their questions.

python recipes/build_bench.py --data DATA -o imc_lite/assets/bench
"""

from __future__ import annotations

import argparse
import io
import json
import zlib
from collections import Counter, defaultdict
from pathlib import Path

from PIL import Image
from sets import load_sets

from imc_lite.bench.data import Case
from imc_lite.bench.findings import facts
from imc_lite.files import write_atomically
from imc_lite.images.grey import is_grey
from imc_lite.images.load import load_image

SIDE, QUALITY = 640, 85
# Pictures of each set; of a set that is not named, all.
COUNTS = {
    "bccd": 28, "child_cxr": 27, "nih_cxr": 24, "brain_mri": 24, "dermoscopy": 24, "foot_photo": 24, "nuclei": 24
}  # fmt: skip
WITHOUT_ULCER = 2  # photographs of feet beside these
QUICK = {
    "vqa_rad": 8, "bccd": 3, "hannover_cxr": 3,
    "child_cxr": 3, "nih_cxr": 2, "brain_mri": 3, "dermoscopy": 2, "foot_photo": 4, "nuclei": 4,
}  # fmt: skip
# Facts whose values take turns when pictures are drawn, those of the second within each value of the first.
BALANCED = {
    "child_cxr": ("cause",),
    "nih_cxr": ("pneumonia",),
    "brain_mri": ("tumour",),
    "dermoscopy": ("lesion",),
    "foot_photo": ("height", "size"),
    "nuclei": ("nuclei", "stain"),
}
KEPT = ("organ", "modality", "plane", "projection", "boxes", "label", "count", "area", "x", "y")
LICENCES = """\
The pictures in this folder, resized so that the longer side is at most 640 pixels and saved again as JPEG. Most sets
are drawn from, not taken whole. Labels are reduced to those that bench.json holds.

vqa_rad/       VQA-RAD, CC0 1.0. Lau et al., Scientific Data 2018, https://doi.org/10.1038/sdata.2018.251
               (pictures from MedPix). Questions and answers in bench.json, answers in lower case without punctuation.
bccd/          BCCD Dataset, MIT licence, below. https://github.com/Shenggan/BCCD_Dataset
hannover_cxr/  COVID-19 Image Repository, Institute for Diagnostic and Interventional Radiology, Hannover Medical
               School. Winther et al., https://doi.org/10.25835/0090041. Licensed under the Creative Commons
               Attribution 3.0 Unported licence, https://creativecommons.org/licenses/by/3.0/. Changes: resized,
               saved as JPEG; labels reduced to the projection.
child_cxr/     Chest radiographs of children. Kermany, Zhang, Goldbaum, Mendeley Data,
               https://doi.org/10.17632/rscbjbr9sj. Licensed under the Creative Commons Attribution 4.0 International
               licence, https://creativecommons.org/licenses/by/4.0/. Changes: resized to squares, saved as JPEG.
nih_cxr/       ChestX-ray14, free to use. The NIH Clinical Center is the data provider:
               https://nihcc.app.box.com/v/ChestXray-NIHCC. Wang, Peng, Lu, Lu, Bagheri, Summers, ChestX-ray8:
               Hospital-scale Chest X-ray Database and Benchmarks on Weakly-Supervised Classification and Localization
               of Common Thorax Diseases, CVPR 2017. Labels were mined from reports.
brain_mri/     Brain Tumor MRI Dataset, CC0 1.0 as stated by its publisher, M. Nickparvar.
dermoscopy/    ISIC UDA-1, CC0 1.0. International Skin Imaging Collaboration, https://www.isic-archive.com.
foot_photo/    Foot Ulcer Segmentation Challenge, CC0 1.0. Wang et al., University of Wisconsin-Milwaukee and AZH Wound
               Center. Labels: size and centre of the wound, from its published outline.
nuclei/        2018 Data Science Bowl, stage 1, with the community's corrections, CC0 1.0. Caicedo et al., Nature
               Methods 2019, https://doi.org/10.1038/s41592-019-0612-7. Labels: number of nuclei and stain.

"""


def choose(cases: list[Case]) -> list[Case]:
    """The pictures of one set that the edition takes, one of a patient, classes in turn; the first come first."""
    source, patients = cases[0].source, set()
    drawn = []
    for case in sorted(cases, key=draw):
        patient = case.labels.get("group", case.path.name)
        if patient not in patients:
            drawn.append(case)
        patients.add(patient)
    count = COUNTS.get(source, len(drawn))
    if source != "foot_photo":
        return in_turn(drawn)[:count]
    stated = [c for c in drawn if set(BALANCED[source]) <= set(facts(source, c.labels))]
    without = [c for c in drawn if c.labels["label"] == "none"]
    return in_turn(stated)[:count] + without[:WITHOUT_ULCER]


def in_turn(cases: list[Case], level: int = 0) -> list[Case]:
    """Pictures of one set, ordered so that the values of the first fact take turns, then those of the second."""
    by_value = defaultdict(list)
    for case in sorted(cases, key=draw):
        by_value[levels(case)[level]].append(case)
    if level + 1 < len(levels(cases[0])):
        by_value = {value: in_turn(some, level + 1) for value, some in by_value.items()}
    ranked = [(rank, draw(case), case) for some in by_value.values() for rank, case in enumerate(some)]
    return [case for *_, case in sorted(ranked, key=lambda row: row[:2])]


def levels(case: Case) -> tuple:
    """Values that take turns, level by level."""
    if case.source not in BALANCED:
        return (tuple(case.labels.get(k) for k in ("organ", "modality", "projection")),)
    known = facts(case.source, case.labels)
    return tuple(known.get(topic) for topic in BALANCED[case.source])


def draw(case: Case) -> int:
    """A number that orders pictures at random, the same at every call."""
    return zlib.crc32(case.path.name.encode())


def small(path: Path) -> bytes:
    """A picture as JPEG, its longer side at most 640."""
    pixels = load_image(path)
    picture = Image.fromarray(pixels[..., 0] if is_grey(pixels) else pixels)
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    by_set = defaultdict(list)
    for case in load_sets(args.data, "test"):
        by_set[case.source].append(case)
    rows, quick = [], []
    for source, cases in by_set.items():
        (args.out / source).mkdir(parents=True, exist_ok=True)
        chosen = choose(cases)
        quick += [name_of(case) for case in in_turn(chosen)[: QUICK[source]]]
        for case in sorted(chosen, key=cases.index):
            data = small(case.path)
            write_atomically(args.out / name_of(case), lambda file, data=data: file.write(data))
            labels = {k: case.labels[k] for k in KEPT if case.labels.get(k) is not None}
            rows.append({"image": name_of(case), "source": source, "labels": labels, "questions": list(case.questions)})
        print(f"{source}: {len(chosen)} of {len(cases)}", dict(Counter(levels(c) for c in chosen)))
    held_out = [c.path.name for c in by_set["vqa_rad"]]
    edition = {"quick": quick, "held_out": held_out, "cases": rows}
    text = json.dumps(edition, ensure_ascii=False, separators=(",", ":")).replace('{"image"', '\n{"image"') + "\n"
    write_atomically(args.out / "bench.json", lambda file: file.write(text.encode()))
    licences = LICENCES + (args.data / "bccd" / "LICENSE").read_text(encoding="utf-8")
    write_atomically(args.out / "LICENSE", lambda file: file.write(licences.encode()))


def name_of(case: Case) -> str:
    """Of a picture within the edition."""
    return f"{case.source}/{case.path.stem}.jpg"


if __name__ == "__main__":
    main()
