"""Every kind of noise at every severity is what it was when its version was given out.

`golden/noise.json` holds fingerprints under the versions of the noise bank and of the restorers. After a change that is
meant, give out a new version and write the file anew: python tests/test_noise_golden.py
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from imc_lite.noise import BANK_VERSION, IMAGE_NOISE, TEXT_NOISE, NoiseKind, apply_to_image, apply_to_text
from imc_lite.pdc.restorers import RESTORERS, RESTORERS_VERSION, restore

FILE = Path(__file__).parent / "golden" / "noise.json"
# Grey levels, of a block's mean: other versions of Pillow and numpy, and other processors, round otherwise. A level
# that changes by a twentieth moves some block by more, which is tested below.
TOLERANCE = 0.03
CODECS, OF_CODECS = ("jpeg",), 3.0  # other builds of a codec give other pixels
BLOCKS = 8
QUESTIONS = (
    "Is there evidence of a right pneumothorax in this chest x-ray?",
    "What modality is this?",
    "Are there more than 3 fractures visible in the left hand of the patient?",
    "How many white blood cells are in the image?",
    "Is the heart enlarged?",
    "Which part of the body is shown here?",
    "In what plane was this image taken?",
    "Is the lesion in the right lower lobe or in the left upper lobe?",
    "Does this patient have cardiomegaly with bilateral pleural effusion?",
    "There is no consolidation, is there?",
    "Where is the abnormality located?",
    "Was intravenous contrast given before the examination?",
    "Are the lymph nodes larger than 10 mm without calcification?",
    "What is the most likely diagnosis?",
    "Has the small bowel obstruction increased since the previous image?",
    "Can you see the gallbladder?",
    "Is this a T2-weighted magnetic resonance image of the brain?",
    "Which symptoms would you expect: shortness of breath, fever or cough?",
    "Is the trachea midline?",
    "Do these findings suggest pneumonia?",
)


def pictures() -> list[np.ndarray]:
    """A picture of the reference size and a larger one, uint8 [H, 24, 3]: edges, a ramp and a texture, in colour."""
    rng, found = np.random.default_rng(0), []
    for height in (320, 640):
        y, x = np.mgrid[:height, :24]
        edges, ramp = 40 * ((y // 23 + x // 5) % 2), 100 * y // height
        texture = rng.integers(0, 60, (height, 24, 3))
        found.append((30 + edges[..., None] + ramp[..., None] * np.array([1, 0, 1]) + texture).astype(np.uint8))
    return found


def of_image(kind: str, severity: int) -> str:
    clean = pictures()
    return fingerprint(clean, [apply_to_image(picture, kind, severity, seed=7) for picture in clean])


def of_restored(kind: str, severity: int) -> str:
    clean = pictures()[:1]
    noisy = [apply_to_image(picture, kind, severity, seed=7) for picture in clean]
    return fingerprint(clean, [restore(picture, kind, severity) for picture in noisy])


def of_text(kind: str, severity: int) -> str:
    """SHA-256 of what becomes of the questions."""
    texts = [apply_to_text(text, kind, severity, seed) for text in QUESTIONS for seed in range(10)]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def fingerprint(before: list[np.ndarray], after: list[np.ndarray]) -> str:
    """How far each eighth of a picture is moved on average, and where its mean lies then, in grey levels."""
    found: list[float] = []
    for clean, noisy in zip(before, after, strict=True):
        for a, b in zip(np.array_split(clean, BLOCKS), np.array_split(noisy, BLOCKS), strict=True):
            found += [np.abs(b.astype(float) - a).mean(), b.mean()]
    return " ".join(f"{value:.2f}" for value in found)


def rows(kind: NoiseKind, of: Callable[[str, int], str]) -> list[list]:
    return [[level, of(kind.name, severity)] for severity, level in enumerate(kind.levels, 1)]


def now() -> dict:
    """What the file holds, of the noise as it is."""
    return {
        "bank": BANK_VERSION,
        "image": {kind.name: rows(kind, of_image) for kind in IMAGE_NOISE.kinds()},
        "text": {kind.name: rows(kind, of_text) for kind in TEXT_NOISE.kinds()},
        "restorers": RESTORERS_VERSION,
        "restored": {name: rows(IMAGE_NOISE.find(name), of_restored) for name in RESTORERS},
    }


def same(kind: str, one: list, other: list) -> bool:
    """Whether two lists of (level, fingerprint or hash) are of the same noise."""
    if len(one) != len(other):
        return False
    for (level, mine), (other_level, theirs) in zip(one, other, strict=True):
        if level != other_level:
            return False
        if " " not in mine and mine != theirs:
            return False
        if " " in mine and np.abs(numbers(mine) - numbers(theirs)).max() > (OF_CODECS if kind in CODECS else TOLERANCE):
            return False
    return True


def numbers(fingerprint: str) -> np.ndarray:
    return np.array(fingerprint.split(), float)


def changed(golden: dict, found: dict) -> list[str]:
    """Kinds that are otherwise than in the file, or are missing on one side, though their version is the file's."""
    names = []
    for version, *parts in (("bank", "image", "text"), ("restorers", "restored")):
        for part in parts if golden[version] == found[version] else ():
            for kind in {**golden[part], **found[part]}:
                if not same(kind, golden[part].get(kind, []), found[part].get(kind, [])):
                    names.append(f"{part} {kind}")
    return names


@pytest.fixture(scope="module")
def golden() -> dict:
    return json.loads(FILE.read_text())


@pytest.fixture(scope="module")
def found() -> dict:
    return now()


def test_noise_is_what_its_version_says(golden, found):
    assert golden["bank"] == BANK_VERSION and golden["restorers"] == RESTORERS_VERSION, "write the golden file anew"
    assert changed(golden, found) == [], "give out a new version, then write the golden file anew"


@pytest.mark.parametrize("kind", [kind for kind in IMAGE_NOISE.names() if kind not in CODECS])
def test_fingerprints_notice_a_level_that_changes_by_a_twentieth(kind, found, monkeypatch):
    noise = IMAGE_NOISE.find(kind)
    other = replace(noise, levels=tuple(level * 1.05 for level in noise.levels))
    monkeypatch.setitem(IMAGE_NOISE._kinds, kind, other)
    level, before = found["image"][kind][1]
    assert not same(kind, [[level, before]], [[level, of_image(kind, 2)]])


@pytest.mark.parametrize(
    ("module", "name", "value", "kinds"),
    [
        ("text_bank", "MISTYPED", (0.34, 0.21, 0.2, 0.25), ["typo"]),
        ("text_bank", "INSIDE", 0.92, ["typo"]),
        ("text_bank", "AGAIN", 0.33, ["typo", "ocr"]),
        ("text_bank", "HEAVY", 0.3, ["typo", "ocr", "drop"]),
        ("text_bank", "ROWS", ("qwertzuiop", "asdfghjkl", "yxcvbnm"), ["typo"]),
    ],
)
def test_hashes_notice_another_probability(module, name, value, kinds, found, monkeypatch):
    monkeypatch.setattr(f"imc_lite.noise.{module}.{name}", value)
    for kind in kinds:
        assert of_text(kind, 5) != found["text"][kind][4][1] or of_text(kind, 3) != found["text"][kind][2][1], kind


def test_a_changed_level_needs_a_new_version(golden, found, tmp_path):
    changed_level = json.loads(json.dumps(found))
    changed_level["image"]["jpeg"][1][0] = 17
    assert changed(golden, changed_level) == ["image jpeg"]
    file = tmp_path / "noise.json"
    file.write_text(FILE.read_text())
    with pytest.raises(SystemExit, match="image jpeg"):
        write(file, changed_level)
    assert file.read_text() == FILE.read_text()
    write(file, {**changed_level, "bank": "next"})
    assert json.loads(file.read_text())["image"]["jpeg"][1][0] == 17


def write(file: Path, found: dict) -> None:
    """Renew the file: what is in it stays as it is unless its version is another; what is missing is added."""
    golden = json.loads(file.read_text())
    if names := [n for n in changed(golden, found) if n.split()[1] in golden[n.split()[0]]]:
        raise SystemExit(f"changed under the same version: {', '.join(names)}; give out a new version first")
    for version, *parts in (("bank", "image", "text"), ("restorers", "restored")):
        for part in parts:
            found[part] |= golden[part] if golden[version] == found[version] else {}
    file.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    write(FILE, now())
