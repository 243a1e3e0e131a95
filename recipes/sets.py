"""The data sets as folders hold them, and the prepared pictures that training reads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from imc_lite.bench.data import Case, load_cases

WITH_FINDINGS = ("child_cxr", "nih_cxr", "brain_mri", "dermoscopy", "foot_photo", "nuclei")
INDEX = "pictures.json"


@dataclass(frozen=True)
class Row:
    """One prepared picture of the training part, and what may be asked about it."""

    path: Path
    source: str
    size: tuple[int, int]  # width and height of the picture
    labels: dict
    questions: tuple[dict, ...]  # the data set's own: question, answer, closed, type
    group: str  # pictures of one group are in one split
    split: str  # train | val

    @property
    def stratum(self) -> str:
        """The set, with the label where a set's labels are far from balance and are drawn apart."""
        apart = self.source in ("dermoscopy", "foot_photo")
        return f"{self.source} {self.labels['label']}" if apart else self.source


def load_sets(data: Path, split: str) -> list[Case]:
    """Pictures of all sets of "train" or "test", in a fixed order."""
    cases = load_cases(data, split)
    for source in WITH_FINDINGS:
        for labels in json.loads((data / source / "labels.json").read_text()):
            if labels["split"] == split:
                cases.append(Case(data / source / labels["image"], source, labels, ()))
    return cases


def load_prepared(folder: Path) -> tuple[list[Row], list[str]]:
    """The rows that `prepare_pictures.py` wrote, and SLAKE's training questions."""
    index = json.loads((folder / INDEX).read_text())
    rows = [
        Row(folder / r["image"], r["source"], r["size"], r["labels"], tuple(r["questions"]), r["group"], r["split"])
        for r in index["rows"]
    ]
    return rows, index["slake"]
