"""A model that is not ours, written from the documentation alone."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imc_lite import IMC, ImcError

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
EXAMPLE = re.search(r"<!-- own model -->\n```python\n(.*?)```", TEXT, flags=re.S).group(1)


def test_the_documented_model_answers():
    done = subprocess.run([sys.executable, "-c", EXAMPLE], capture_output=True, text=True, check=True)
    assert done.stdout == "dark\n"
    assert len([line for line in EXAMPLE.splitlines() if line.strip()]) <= 30


def test_it_is_judged_and_repairs_through_the_protocol():
    names: dict = {}
    exec(EXAMPLE.replace("print(", "str("), names)
    model = names["Brightness"]()
    bright = model.perceive(np.full((4, 4, 3), 255, np.uint8)).tokens
    assert model.agrees([("Is it?", "Bright."), ("Is it?", "dark")], bright) == [True, False]
    assert IMC(model).repair("Is the heart enlarged?").repaired == "Is the heart enlarged?"
    bright = np.full((4, 4), 255, np.uint8)
    assert IMC(model).answer(bright, "Is it bright?").answer == "bright"
    with pytest.raises(ImcError, match="brightness gives no probabilities of single tokens"):
        IMC(model).answer(bright, "Is it bright?", top_logprobs=2)
    with pytest.raises(ImcError, match="top_logprobs is 21; give 0 to 20"):
        IMC(model).answer(bright, "Is it bright?", top_logprobs=21)


@pytest.fixture
def package(tmp_path) -> dict[str, str]:
    """The environment of a command that finds the example as an installed package."""
    (tmp_path / "own_package.py").write_text(EXAMPLE.replace("print(", "str("))
    facts = tmp_path / "own_package-1.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: own-package\nVersion: 1\n")
    (facts / "entry_points.txt").write_text("[imc_lite.models]\nbrightness = own_package:open_brightness\n")
    return {**os.environ, "PYTHONPATH": str(tmp_path)}


def command(package, *args) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "imc_lite", *map(str, args)]
    return subprocess.run(line, capture_output=True, text=True, env=package, check=False)


def test_a_package_brings_it_to_every_command(package, chest):
    for name in ("brightness", "brightness:large"):
        done = command(package, "answer", "-m", name, chest, "Is this bright?")
        assert done.returncode == 0 and done.stdout in ("dark\n", "bright\n"), done.stderr


@pytest.mark.slow
def test_an_encoder_that_sees_nothing_borrows_one_that_names_noise(package, tmp_path):
    """Prototypes are built from CT, shown with the windows of a recipe, and are for pictures that are shown so."""
    pytest.importorskip("pydicom")
    from dicom_files import make, written

    folder, out = tmp_path / "ct", tmp_path / "p"
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(16):
        smooth = random.normal(0, 300, (6, 5)).repeat(8, 0).repeat(8, 1) + random.normal(0, 30, (48, 40))
        dataset = make(smooth.astype(np.int16), RescaleSlope=1, RescaleIntercept=0)
        (folder / f"{i:02}").write_bytes(written(dataset))
    build = ("prototypes", "build", "-m", "brightness", "--images", folder, "-o", out, "--window", "medgemma-ct")
    built = command(package, *build)
    assert built.returncode == 0 and "noise is read from the default model's encoder" in built.stderr
    look = ("inspect", "-m", "brightness", "--prototypes", out, folder / "00", "--json")
    seen = command(package, *look, "--window", "medgemma-ct")
    assert json.loads(seen.stdout)["noise"]["kind"], seen.stderr
    other = command(package, *look, "--window", "lung")
    assert other.returncode == 2 and "built with --window -100,2250:40,350:40,80" in other.stderr
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(folder / "picture.png")
    mixed = command(package, *build)
    assert mixed.returncode == 2 and "picture.png is not DICOM" in mixed.stderr


def test_what_a_model_of_ones_own_does_not_take_is_refused(package, chest):
    done = command(package, "answer", "-m", "brightness", "--quant", "int4", chest, "Is it dark?")
    assert done.returncode == 2 and "leave --quant out" in done.stderr and done.stderr.count("\n") == 1
    with pytest.raises(ImcError, match="a processor goes with a loaded model"):
        IMC.from_pretrained("default", processor=object())


@pytest.mark.parametrize("threads", [0, -3, 257, True, "2", 1.5])
def test_a_number_of_threads_that_cannot_be_meant(threads):
    with pytest.raises(ImcError, match=f"threads is {threads!r}; give 1 to 256"):
        IMC.from_pretrained(threads=threads)
