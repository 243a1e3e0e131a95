"""What the page offers to try: pictures of the packaged benchmark, and noise on any picture."""

from __future__ import annotations

import base64
import json
from functools import cache
from importlib import resources
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from imc_lite.errors import ImcError, shown
from imc_lite.images.data_uri import data_uri
from imc_lite.models.deadline import Deadline
from imc_lite.noise.image import FURTHER_KINDS, IMAGE_KINDS, apply_to_image
from imc_lite.pipeline import IMC
from imc_lite.server.jobs import small
from imc_lite.server.pictures import Picture
from imc_lite.server.pool import Job
from imc_lite.server.schema import PIXEL, PictureRequest

KINDS = (*IMAGE_KINDS, *FURTHER_KINDS)
OFFERED = {
    "child_cxr": ("Chest film of a child", "Is there pneumonia?"),
    "brain_mri": ("MRI of a brain", "What kind of tumour is this?"),
    "bccd": ("Blood film", "What modality is this?"),
}
"""By set: what the first picture of it is called, and what may be asked about it."""


class NoiseRequest(PictureRequest):
    """A picture to damage."""

    model_config = ConfigDict(json_schema_extra={"example": {"image": PIXEL, "kind": "gaussian", "severity": 3}})

    kind: str = Field(description=", ".join(KINDS))
    severity: int = Field(default=3, ge=1, le=5, description="1 (mild) to 5 (severe)")
    seed: int = Field(default=0, ge=0, le=2**32 - 1, description="the same gives the same pixels")


class Damaged(BaseModel):
    """A noisy copy of a picture as a PNG data URI."""

    image: str


class Example(BaseModel):
    """A packaged picture as a data URI, with a question that it answers."""

    name: str
    image: str
    question: str


class Examples(BaseModel):
    examples: list[Example]


def damage(picture: Picture, kind: str, severity: int, seed: int) -> Job[dict[str, str]]:
    """A noisy copy of a picture, of the size at which it is shown.

    Raises:
        ImcError: unknown kind.
    """
    if kind not in KINDS:
        raise ImcError(f"unknown image noise {shown(kind)!r}: choose one of {', '.join(KINDS)}")

    def job(imc: IMC, deadline: Deadline) -> dict[str, str]:
        loaded = picture.load()
        deadline.check()
        return {"image": data_uri(apply_to_image(small(loaded.pixels), kind, severity, seed))}

    return job


@cache
def examples() -> list[dict[str, str]]:
    """Name, picture as a data URI, and question of each."""
    folder = resources.files("imc_lite") / "assets" / "bench"
    cases: list[dict[str, Any]] = json.loads((folder / "bench.json").read_text(encoding="utf-8"))["cases"]
    first = {case["source"]: case["image"] for case in reversed(cases)}
    return [
        {
            "name": name,
            "image": "data:image/jpeg;base64," + base64.b64encode((folder / first[source]).read_bytes()).decode(),
            "question": question,
        }
        for source, (name, question) in OFFERED.items()
    ]
