"""Pictures with questions for the benchmark: the packaged edition, and folders known by the files in them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from imc_lite.errors import ImcError

EDITION = Path(__file__).parent.parent / "assets" / "bench"
VQA_RAD = ("VQA_RAD Dataset Public.json", "VQA_RAD Image Folder")
SLAKE = ("test.json", "imgs")
FOLDERS = ("vqa_rad/qa.json", "hannover_cxr/labels.json", "bccd/labels.json")


@dataclass(frozen=True)
class Case:
    """One image and what may be asked about it."""

    path: Path
    source: str  # vqa_rad | slake, with questions of their own; hannover_cxr | bccd, or one of `asked.ASKED`
    labels: dict
    questions: tuple[dict, ...]  # question, answer, closed, type; the data set's own

    @property
    def name(self) -> str:
        """Of the picture within its source."""
        return self.path.name if self.source != "slake" else f"{self.path.parent.name}/{self.path.name}"


def normalize(answer: str) -> str:
    """Lower case, no punctuation but inside numbers, single spaces: what exact match compares."""
    text = re.sub(r"(?<!\d)[^\w\s]|[^\w\s](?!\d)", " ", answer.lower())
    return " ".join(text.split())


def load_folder(folder: Path) -> list[Case]:
    """The test pictures of a folder, whose layout is told by the files in it.

    - `bench.json`: an edition as `recipes/build_bench.py` writes it
    - `vqa_rad/qa.json`, `hannover_cxr/labels.json`, `bccd/labels.json`, any of them: the layout of the recipes
    - `VQA_RAD Dataset Public.json` beside `VQA_RAD Image Folder/`: VQA-RAD as published
    - `test.json` beside `imgs/`: SLAKE as published, its English questions

    Raises:
        ImcError: none of these, or a file that does not hold what its format says.
    """
    if not folder.is_dir():
        raise ImcError(f"{folder} is not a folder; name one that holds a data set")
    readers: list[tuple[bool, Callable[[Path], list[Case]]]] = [
        ((folder / "bench.json").is_file(), load_edition),
        (any((folder / name).is_file() for name in FOLDERS), lambda at: load_cases(at, "test")),
        (all((folder / name).exists() for name in VQA_RAD), load_vqa_rad),
        (all((folder / name).exists() for name in SLAKE), load_slake),
    ]
    for known, read in readers:
        if not known:
            continue
        try:
            cases = read(folder)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            why = f"{type(error).__name__}: {error}"
            raise ImcError(
                f"{folder} looks like a data set and cannot be read as one ({why}); fetch it again"
            ) from error
        if not cases:
            raise ImcError(f"{folder} holds no test picture that this uses; name another folder")
        missing = next((c.path for c in cases if not c.path.is_file()), None)
        if missing is not None:
            raise ImcError(f"{missing} is named by its data set and is missing; fetch the data set again")
        return cases
    raise ImcError(
        f"{folder} holds no data set this knows: VQA-RAD or SLAKE as published, or a folder with bench.json; "
        "name the folder that holds the set's JSON file"
    )


def load_edition(folder: Path = EDITION) -> list[Case]:
    """The packaged edition, or another one in its format."""
    return [
        Case(folder / row["image"], row["source"], row["labels"], tuple(row["questions"]))
        for row in _read(folder / "bench.json")["cases"]
    ]


@cache
def edition_facts() -> dict[str, Any]:
    """Of the packaged edition: `quick`, the pictures of the quick run, and `held_out`, VQA-RAD's untrained ones."""
    facts = _read(EDITION / "bench.json")
    return {name: frozenset(facts[name]) for name in ("quick", "held_out")}


def load_cases(data: Path, split: str) -> list[Case]:
    """Cases of "train" or "test" in the layout of the recipes, in a fixed order; missing parts are left out."""
    cases = []
    if (data / FOLDERS[0]).is_file():
        cases += _vqa_rad(
            data / "vqa_rad" / "images",
            [r for r in _read(data / FOLDERS[0]) if r["split"] == split],
            lambda row: row["modality"],
        )
    for folder, extra in (("hannover_cxr", {"organ": "chest", "modality": "X-Ray"}), ("bccd", {})):
        if not (data / folder / "labels.json").is_file():
            continue
        for row in _read(data / folder / "labels.json"):
            if row["split"] == split:
                cases.append(Case(data / folder / "images" / row["image"], folder, {**row, **extra}, ()))
    return cases


def load_vqa_rad(folder: Path) -> list[Case]:
    """VQA-RAD as published (osf.io/89kps), the pictures that the default model was not trained on.

    The published test split shares every picture with its training part, so pictures, not questions, are held out.
    The file states no modality; templates ask for the body part and, where the answers name it, the plane.
    """
    rows = []
    for row in _read(folder / VQA_RAD[0]):
        if row["image_name"] not in edition_facts()["held_out"]:
            continue
        organ = row["image_organ"].strip().lower()
        closed = row["answer_type"].strip().lower() == "closed"
        rows.append(
            {
                "image": row["image_name"],
                "question": row["question"],
                "answer": str(row["answer"]),
                "answer_type": "closed" if closed else "open",
                "question_type": row["question_type"],
                "organ": organ,
            }
        )
    return _vqa_rad(folder / VQA_RAD[1], rows, lambda row: None)


def load_slake(folder: Path) -> list[Case]:
    """SLAKE as published (med-vqa.com/slake), the English questions of its test split; no templates."""
    by_image: dict[str, list[dict]] = {}
    for row in _read(folder / SLAKE[0]):
        if row["q_lang"] == "en":
            by_image.setdefault(row["img_name"], []).append(row)
    return [
        Case(
            folder / SLAKE[1] / name,
            "slake",
            {},
            _questions(
                (r["question"], str(r["answer"]), r["answer_type"].lower() == "closed", r["content_type"])
                for r in by_image[name]
            ),
        )
        for name in sorted(by_image)
    ]


def _vqa_rad(images: Path, rows: list[dict], modality: Callable[[dict], str | None]) -> list[Case]:
    by_image: dict[str, list[dict]] = {}
    for row in rows:
        by_image.setdefault(row["image"], []).append(row)
    cases = []
    for name in sorted(by_image):
        mine = by_image[name]
        labels = {"organ": mine[0]["organ"], "modality": modality(mine[0]), "plane": _plane(mine)}
        asked = ((r["question"], r["answer"], r["answer_type"] == "closed", r["question_type"]) for r in mine)
        cases.append(Case(images / name, "vqa_rad", labels, _questions(asked)))
    return cases


def _questions(rows: Any) -> tuple[dict, ...]:
    return tuple(
        {"question": " ".join(question.split()), "answer": normalize(answer), "closed": closed, "type": kind}
        for question, answer, closed, kind in rows
    )


def _plane(rows: list[dict]) -> str | None:
    """The plane the clinicians' own answers name, when they agree on one."""
    found = set()
    for row in rows:
        answer = normalize(row["answer"])
        if row["question_type"] == "PLANE" and row["answer_type"] == "open":
            found |= {p for p in ("axial", "coronal", "sagittal") if p in answer}
        elif answer == "yes":
            match = re.search(r"\b(?:is|was) (?:this|the)\b.*\b(axial|coronal|sagittal)\b", row["question"].lower())
            found |= {match.group(1)} if match else set()
    return found.pop() if len(found) == 1 else None


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
