"""Template questions with many wordings, for the benchmark and (on other pictures) for training.

They ask only what a label file or a box states: modality, body part, plane, projection, and of blood
films the kinds, counts and places of cells.
"""

from __future__ import annotations

import numpy as np

MODALITY = {"CT": "ct", "MRI": "mri", "X-Ray": "x-ray", "cells": "microscopy"}
ORGAN = {"head": "head", "chest": "chest", "abd": "abdomen", "cells": "blood"}
NAMES = {
    "ct": ("CT scan", "CT", "computed tomography scan"),
    "mri": ("MRI", "MR image", "magnetic resonance image"),
    "x-ray": ("x-ray", "radiograph", "plain film"),
    "microscopy": ("microscopy image", "photomicrograph", "blood smear"),
}
PARTS = {
    "head": ("head", "brain"),
    "chest": ("chest", "thorax"),
    "abdomen": ("abdomen", "belly"),
    "blood": ("blood", "blood cells"),
}
ASK = {
    "modality": (
        "What modality is this?",
        "What imaging modality was used?",
        "Which imaging modality is this?",
        "What kind of imaging is shown?",
        "How was this picture acquired: ct, mri, x-ray or microscopy?",
        "What is the modality of this image?",
        "Name the imaging modality.",
        "What modality is used to take this image?",
    ),
    "organ": (
        "What body part is shown?",
        "Which part of the body is this?",
        "Which part of the body does this image belong to?",
        "What part of the body is imaged?",
        "Which region of the body is displayed?",
        "What region is shown here: head, chest, abdomen or blood?",
        "Name the body part in this image.",
    ),
    "plane": (
        "In what plane was this image taken?",
        "What plane is this image in?",
        "Which imaging plane is shown?",
        "What is the imaging plane: axial, coronal, sagittal or frontal?",
        "Name the plane of section.",
    ),
    "projection": (
        "Is this chest film AP or PA?",
        "Which projection is this: ap or pa?",
        "What is the projection of this radiograph?",
        "Was this radiograph taken AP or PA?",
        "Name the projection of this chest film, ap or pa.",
    ),
}
PLANES = ("axial", "coronal", "sagittal", "frontal")
COUNTS = ("zero", "one", "two", "three", "four", "five")
CELL = {
    "wbc": ("white blood cell", "leukocyte", "white cell"),
    "rbc": ("red blood cell", "erythrocyte", "red cell"),
    "platelets": ("platelet", "thrombocyte", "platelet"),
}


def truths(source: str, labels: dict) -> dict[str, str]:
    """What the labels state about an image: {"modality": "ct", "organ": "head", ...}."""
    if source == "bccd":
        return {"modality": MODALITY["cells"], "organ": ORGAN["cells"]}
    found = {}
    if source != "vqa_rad":
        found["modality"] = "x-ray"
    elif labels.get("modality"):
        found["modality"] = MODALITY[labels["modality"]]
    found["organ"] = ORGAN[labels["organ"]]
    if labels.get("plane"):
        found["plane"] = labels["plane"]
    if labels.get("projection"):
        found["projection"] = labels["projection"]
        found["plane"] = "frontal"
    return found


def ask(kind: str, answer: str, rng: np.random.Generator) -> tuple[str, str]:
    """One wording about one fact: open, or (a third of the time) yes/no about the right or a wrong value."""
    if rng.random() < 0.65:
        wordings = ASK[kind]
        return wordings[rng.integers(len(wordings))], answer
    values: tuple[str, ...]
    if kind in ("modality", "organ"):
        table = NAMES if kind == "modality" else PARTS
        values = tuple(table)
        asked = answer if rng.random() < 0.5 else values[rng.integers(len(values))]
        name = table[asked][rng.integers(len(table[asked]))]
        forms: tuple[str, ...] = ("Is this a {}?", "Is this image a {}?", "Does this look like a {}?")
        if kind == "organ":
            forms = ("Is this the {}?", "Does this image show the {}?", "Is the {} pictured here?")
    else:
        values = PLANES if kind == "plane" else ("ap", "pa")
        asked = answer if rng.random() < 0.5 else values[rng.integers(len(values))]
        name = asked if kind == "plane" else asked.upper()
        forms = ("Is this an {} image?", "Was this taken in the {} plane?")
        if kind == "projection":
            forms = ("Is this a {} film?", "Was this film taken {}?")
    return forms[rng.integers(len(forms))].format(name), "yes" if asked == answer else "no"


def cell_questions(boxes: list, rng: np.random.Generator, count: int) -> list[tuple[str, str]]:
    """`count` pairs about (kind, centre x, centre y) boxes of one blood film, 0-1 from the top left."""
    makers = (_presence, _presence, _wbc_count, _side, _side, _many, _commonest)
    pairs: list[tuple[str, str]] = []
    while len(pairs) < count:
        pair = makers[rng.integers(len(makers))](boxes, rng)
        if pair is not None:
            pairs.append(pair)
    return pairs


def _name(kind: str, rng: np.random.Generator) -> str:
    return CELL[kind][rng.integers(3)]


def _presence(boxes: list, rng: np.random.Generator) -> tuple[str, str]:
    kind = ("wbc", "platelets")[rng.integers(2)]
    forms = ("Is there a {}?", "Is a {} visible?", "Does this image contain a {}?", "Can you see any {}s?")
    question = forms[rng.integers(len(forms))].format(_name(kind, rng))
    return question, "yes" if any(b[0] == kind for b in boxes) else "no"


def _wbc_count(boxes: list, rng: np.random.Generator) -> tuple[str, str]:
    number = sum(b[0] == "wbc" for b in boxes)
    forms = ("How many {}s are there?", "How many {}s are visible?", "Count the {}s.")
    return forms[rng.integers(len(forms))].format(_name("wbc", rng)), COUNTS[min(number, 5)]


def _side(boxes: list, rng: np.random.Generator) -> tuple[str, str] | None:
    """Where the only white cell lies; none when it sits near the middle line, where nobody could say."""
    cells = [b for b in boxes if b[0] == "wbc"]
    if len(cells) != 1:
        return None
    axis = int(rng.integers(2))
    place = cells[0][1 + axis]
    if abs(place - 0.5) < 0.08:
        return None
    low, high = (("left", "right"), ("upper", "lower"))[axis]
    forms = ("Is the {} in the {} or {} half?", "On which side is the {}, {} or {}?")
    if axis:
        forms = ("Is the {} in the {} or {} half?", "Which half holds the {}, {} or {}?")
    question = forms[rng.integers(2)].format(_name("wbc", rng), low, high)
    return question, low if place < 0.5 else high


def _many(boxes: list, rng: np.random.Generator) -> tuple[str, str] | None:
    """A count of red cells against a round number, left out when it is too close to call."""
    number = sum(b[0] == "rbc" for b in boxes)
    bar = (3, 5, 10, 15)[rng.integers(4)]
    if abs(number - bar) < 2:
        return None
    forms = ("Are there more than {} {}s?", "Do you see more than {} {}s?")
    question = forms[rng.integers(2)].format(bar, _name("rbc", rng))
    return question, "yes" if number > bar else "no"


def _commonest(boxes: list, rng: np.random.Generator) -> tuple[str, str] | None:
    number = sum(b[0] == "rbc" for b in boxes)
    if number < 3:
        return None
    forms = ("Which cell type is most common?", "What kind of cell is seen most?", "Name the commonest cell.")
    return forms[rng.integers(3)], "red blood cell"
