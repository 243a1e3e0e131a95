"""What the labels of the sets with findings state, and the benchmark's questions about it.

The facts are shared with training; the wordings are not: training has its own (`recipes/wordings.py`), so that a
figure here tells of understanding, not of a remembered sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

KIND = {
    "hannover_cxr": "x-ray",
    "child_cxr": "x-ray",
    "nih_cxr": "x-ray",
    "brain_mri": "mri",
    "dermoscopy": "dermoscopy",
    "foot_photo": "photograph",
    "bccd": "microscopy",
    "nuclei": "microscopy",
}
ORGAN = {
    "hannover_cxr": "chest",
    "child_cxr": "chest",
    "nih_cxr": "chest",
    "brain_mri": "head",
    "dermoscopy": "skin",
    "foot_photo": "foot",
    "bccd": "blood",
    "nuclei": "cells",
}
OF_VQA_RAD = {"CT": "ct", "MRI": "mri", "X-Ray": "x-ray", "head": "head", "chest": "chest", "abd": "abdomen"}
# Four ranges, cut near the quartiles of the training pictures (16, 27, 53).
RANGES = ("up to 15", "16 to 25", "26 to 50", "over 50")
RANGE_ENDS = (15, 25, 50)
CHILD = {"normal": "no pneumonia", "bacterial": "bacterial pneumonia", "viral": "viral pneumonia"}
TUMOUR = {"glioma": "glioma", "meningioma": "meningioma", "pituitary": "pituitary tumour"}
LARGE_WOUND = 0.007  # share of the picture: the median of the training pictures
SIZE_MARGIN = 1.25  # a wound nearer to it than by this factor is neither small nor large
MIDDLE = 0.02  # a wound whose centre is nearer to the middle line has no side
NOT_SHOWN = "not shown in this image"


@dataclass(frozen=True)
class Topic:
    """How one fact is asked about."""

    open: tuple[str, ...]  # answered by the value itself
    closed: Mapping[str, tuple[str, ...]]  # by value: answered "yes" where the fact has this value, else "no"


def forms(patterns: tuple[str, ...], names: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Closed questions by value: every pattern with every name of the value."""
    return {value: tuple(p.format(n) for p in patterns for n in some) for value, some in names.items()}


def facts(source: str, labels: Mapping) -> dict[str, str]:
    """What the labels state about a picture, by topic: {"kind": "x-ray", "organ": "chest", "pneumonia": "normal"}."""
    if source == "vqa_rad":
        found = {"organ": OF_VQA_RAD[labels["organ"]]}
        return found | ({"kind": OF_VQA_RAD[labels["modality"]]} if labels.get("modality") else {})
    found = {"kind": KIND[source], "organ": ORGAN[source]}
    label = labels.get("label")
    if source == "child_cxr":
        found |= {"pneumonia": "normal" if label == "normal" else "pneumonia", "cause": CHILD[str(label)]}
    elif source == "nih_cxr":
        found["pneumonia"] = str(label)
    elif source == "brain_mri":
        found["tumour"] = TUMOUR[str(label)]
    elif source == "dermoscopy":
        found["lesion"] = str(label)
    elif source == "foot_photo":
        found |= _wound(labels)
    elif source == "nuclei":
        found |= {"nuclei": RANGES[int(np.searchsorted(RANGE_ENDS, labels["count"]))], "stain": str(label)}
    return found


def _wound(labels: Mapping) -> dict[str, str]:
    if labels["label"] == "none":
        return {"ulcer": "no ulcer"}
    found = {"ulcer": "ulcer"}
    if (x := labels.get("x")) is not None and abs(x - 0.5) >= MIDDLE:
        found["side"] = "left" if x < 0.5 else "right"
    if (y := labels.get("y")) is not None and abs(y - 0.5) >= MIDDLE:
        found["height"] = "upper" if y < 0.5 else "lower"
    area = labels.get("area")
    if area is not None and not LARGE_WOUND / SIZE_MARGIN < area < LARGE_WOUND * SIZE_MARGIN:
        found["size"] = "small" if area < LARGE_WOUND else "large"
    return found


def ask_open(topic: Topic, value: str, rng: np.random.Generator) -> tuple[str, str]:
    """One open wording and its answer."""
    return topic.open[rng.integers(len(topic.open))], value


def ask_closed(topic: Topic, value: str, rng: np.random.Generator) -> tuple[str, str]:
    """One yes/no wording, half the time about the right value, and its answer."""
    others = [v for v in topic.closed if v != value]
    asked = value if rng.random() < 0.5 else others[rng.integers(len(others))]
    wordings = topic.closed[asked]
    return wordings[rng.integers(len(wordings))], "yes" if asked == value else "no"


TOPICS = {
    "kind": Topic(
        (
            "By which technique was this picture made: ct, mri, x-ray, microscopy, dermoscopy or photograph?",
            "Say what sort of medical picture this is.",
        ),
        forms(
            ("Would you call this {}?", "Are we looking at {}?"),
            {
                "ct": ("a CT slice",),
                "mri": ("an MRI slice",),
                "x-ray": ("an x-ray film",),
                "microscopy": ("a picture taken through a microscope",),
                "dermoscopy": ("a dermoscopic picture",),
                "photograph": ("a photograph taken with an ordinary camera",),
            },
        ),
    ),
    "pneumonia": Topic(
        ("Decide between pneumonia and normal.", "Pneumonia or normal: which fits this film?"),
        {
            "pneumonia": ("Does the patient have pneumonia?", "Would you report pneumonia here?"),
            "normal": ("Would you report this film as normal?", "Are both lungs free of disease?"),
        },
    ),
    "cause": Topic(
        (
            "Bacterial pneumonia, viral pneumonia or no pneumonia: which fits this film?",
            "Which of bacterial pneumonia, viral pneumonia and no pneumonia would you report?",
        ),
        {
            "bacterial pneumonia": ("Would you report a bacterial pneumonia?",),
            "viral pneumonia": ("Would you report a viral pneumonia?",),
            "no pneumonia": ("Is the film free of pneumonia?",),
        },
    ),
    "tumour": Topic(
        (
            "Which of glioma, meningioma and pituitary tumour is seen?",
            "Classify the mass in this scan.",
        ),
        forms(
            ("Would you report {}?", "Does the mass look like {}?"),
            {
                "glioma": ("a glioma",),
                "meningioma": ("a meningioma",),
                "pituitary tumour": ("a pituitary tumour",),
            },
        ),
    ),
    "lesion": Topic(
        ("Decide between melanoma and nevus.", "Melanoma or nevus: which fits this spot?"),
        {
            "melanoma": ("Would you report a melanoma?", "Should this spot be called cancerous?"),
            "nevus": ("Would you report a nevus?", "Should this spot be called harmless?"),
        },
    ),
    "ulcer": Topic(
        (),
        {"ulcer": ("Does this foot have an open sore?",), "no ulcer": ("Is the foot free of open sores?",)},
    ),
    "height": Topic(
        ("Does the sore lie in the upper or in the lower half?", "Upper or lower half: where is the open sore?"), {}
    ),
    "side": Topic(
        ("Does the sore lie in the left or in the right half?", "Left or right half: where is the open sore?"), {}
    ),
    "size": Topic(("Would you call the sore small or large?", "Small or large: how big is the open sore?"), {}),
    "nuclei": Topic(
        (
            "Estimate the number of nuclei: up to 15, 16 to 25, 26 to 50 or over 50.",
            "In which range does the number of nuclei fall: up to 15, 16 to 25, 26 to 50, over 50?",
        ),
        {},
    ),
    "stain": Topic(("Say whether the nuclei are seen by fluorescence, stained or by brightfield.",), {}),
}
FOREIGN = {
    "chest": ("Would you report fluid around the lungs?", "Is the outline of the heart widened?"),
    "head": ("Are the ventricles of the brain widened?", "Would you report bleeding in the brain?"),
    "abdomen": ("Would you report stones in the gallbladder?", "Are the bowel loops widened?"),
    "skin": ("Would you call the mole on this skin irregular?",),
    "foot": ("How wide is the sore on the foot?",),
    "blood": ("Are the white blood cells of this smear too many?",),
}
# Parts whose questions a picture of the organ might answer too.
NEAR = {"foot": {"skin"}, "cells": {"blood"}, "blood": {"cells"}}


def ask_foreign(organ: str, foreign: Mapping[str, tuple[str, ...]], rng: np.random.Generator) -> tuple[str, str]:
    """A question about another part of the body, and the answer that this picture does not show it."""
    near = NEAR.get(organ, set())
    wordings = [w for part, some in foreign.items() if part != organ and part not in near for w in some]
    return wordings[rng.integers(len(wordings))], NOT_SHOWN
