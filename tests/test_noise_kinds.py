"""A kind of noise is added in one place, and the documented examples run."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from imc_lite import ImcError
from imc_lite.noise import IMAGE_NOISE, TEXT_NOISE, Edit, apply_to_image, apply_to_text

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "noise.md").read_text(encoding="utf-8")


def example(name: str) -> str:
    return re.search(rf"<!-- {name} -->\n```python\n(.*?)```", TEXT, flags=re.S).group(1)


@pytest.fixture
def fog(monkeypatch) -> str:
    """The documented kind, for one test."""
    monkeypatch.setattr(IMAGE_NOISE, "_kinds", dict(IMAGE_NOISE._kinds))
    exec(example("own kind"), {})
    return "fog"


def test_a_registered_kind_is_applied(fog):
    noisy = apply_to_image(np.zeros((5, 7, 3), np.uint8), fog, 2, seed=0)
    assert noisy.shape == (5, 7, 3) and (noisy == round(0.2 * 255)).all()
    assert IMAGE_NOISE.names("unseen")[-1] == fog and fog not in IMAGE_NOISE.names("bank")


def test_the_command_knows_it(fog, chest, tmp_path):
    from imc_lite.cli.main import cli

    out = tmp_path / "fog.png"
    done = CliRunner().invoke(cli, ["noise", str(chest), "--kind", fog, "-o", str(out)])
    assert done.exit_code == 0 and out.is_file()
    wrong = CliRunner().invoke(cli, ["noise", str(chest), "--kind", "frog", "-o", str(out)])
    assert isinstance(wrong.exception, ImcError) and str(wrong.exception).endswith(", fog")


def test_a_test_fails_until_its_page_and_its_fingerprint_are_there(fog):
    sys.path[:0] = [str(ROOT / "recipes"), str(Path(__file__).parent)]
    from tables import fill
    from test_noise_golden import changed, of_image

    assert "| `fog` | 0.1 0.2 0.3 0.45 0.6 | share of white that is mixed in |" in fill(TEXT) != TEXT
    versions = {"bank": "1", "restorers": "1"}
    before = versions | {"image": {}, "text": {}, "restored": {}}
    after = before | {"image": {fog: [[0.1, of_image(fog, 1)]]}}
    assert changed(before, after) == ["image fog"]


def test_text_kinds_are_registered_alike(monkeypatch):
    monkeypatch.setattr(TEXT_NOISE, "_kinds", dict(TEXT_NOISE._kinds))

    @TEXT_NOISE.register("hum", "unseen", levels=(1, 2), measure="words that are hummed", source="of our own")
    def hum(words: list[str], level: float, rng: np.random.Generator) -> list[Edit]:
        return [Edit(i, i + 1, words[i], "hm") for i in range(int(level))]

    assert apply_to_text("What is this?", "hum", 2, seed=0) == "hm hm this?"
    with pytest.raises(ImcError, match=r"severity 3 is out of range: choose 1 \(mild\) to 2"):
        apply_to_text("What is this?", "hum", 3, seed=0)


@pytest.mark.parametrize("kind", ["impulse", "spike", "low_contrast"])
def test_the_strength_of_a_level_is_its_severity_and_lies_between_elsewhere(kind):
    found = IMAGE_NOISE.find(kind)
    assert [found.strength(found.level(severity)) for severity in range(1, 6)] == pytest.approx([1, 2, 3, 4, 5])
    between = (found.level(2) * found.level(3)) ** 0.5
    assert found.strength(between) == pytest.approx(2.5)
    weak, strong = sorted((found.level(1), found.level(5)), reverse=found.level(1) > found.level(5))
    assert found.strength(weak**2 / strong) == 1 and found.strength(strong**2 / weak) == 5


def test_a_taken_name_is_refused():
    with pytest.raises(ValueError, match="registered already"):
        IMAGE_NOISE.register("gaussian", "unseen", levels=(1.0,), measure="", source="")


def test_long_names_are_cut_in_errors():
    with pytest.raises(ImcError) as caught:
        apply_to_image(np.zeros((2, 2), np.uint8), "x" * 5000, 1, 0)
    assert len(str(caught.value)) < 400 and "x" * 81 not in str(caught.value)


@pytest.mark.slow
def test_the_documented_example_runs(default_bundle):
    command = [sys.executable, "-c", example("noise example")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    names, garbled, found, answer = done.stdout.splitlines()
    assert names == str(IMAGE_NOISE.names("bank")) and garbled != "Is the heart enlarged?"
    assert found == "gaussian 4 True True" and answer == "x-ray"


def test_faces_cost_nothing_until_used():
    code = (
        "import sys, imc_lite.noise, imc_lite.pdc; print({'numpy', 'PIL', 'imc_lite.noise.image'} & set(sys.modules));"
        "import imc_lite.noise as n, imc_lite.pdc as p; print(all(getattr(m, a) for m in (n, p) for a in m.__all__))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\nTrue\n"
