"""The benchmark under noise that somebody else wrote."""

import json

import numpy as np
import pytest

from imc_lite import IMC, ImcError, load_image
from imc_lite.bench.benchmark import run_benchmark
from imc_lite.bench.data import load_edition
from imc_lite.bench.generators import Generator, load_generators
from imc_lite.bench.plan import KINDS, Options, make_plan
from imc_lite.bench.tables import markdown
from imc_lite.pdc.prototypes import load_prototypes

THEIRS = """
import numpy as np

def salt(picture, severity, seed):
    white = np.random.default_rng(seed).random(picture.shape[:2]) < 0.05 * severity
    return np.where(white[..., None], np.uint8(255), picture)

def generators():
    return {"others: salt & more": salt}
"""


@pytest.mark.slow
def test_noise_of_others_is_measured_as_ours_is(default_model, tmp_path):
    file = tmp_path / "theirs.py"
    file.write_text(THEIRS)
    imc = IMC(default_model, load_prototypes(default_model.prototypes_file(), default_model.identity))
    cases = [c for c in load_edition() if c.source == "hannover_cxr"]

    def options(text: str) -> Options:
        file.write_text(text)
        generators = load_generators(str(file), taken=KINDS)
        return Options((generators[0].name,), (4,), limit=3, generators=generators)

    results = run_benchmark(imc, cases, options(THEIRS), tmp_path / "out")
    clean, theirs = results["conditions"]
    assert (theirs["noise"], theirs["severity"], theirs["of"]) == ("others: salt & more", 4, "image")
    assert "named" in clean and "named" not in theirs  # there is no right name for it
    assert {"plain", "pdc", "imc", "shift"} <= set(theirs["arms"]) and "restore" not in theirs["arms"]
    assert sum(results["confusion"]["others: salt & more"].values()) == 3
    assert "| others: salt & more | 4 |" in markdown(results)
    # What was judged is what the function makes of the picture, by the picture's own seed.
    plan = make_plan(cases, options(THEIRS))
    part = json.loads((tmp_path / "out" / "parts" / "others:-salt-&-more-4.json").read_text())
    noisy = plan.options.generators[0](load_image(plan.cases[0].path), 4, plan.seed(0))
    noise = imc.inspect(noisy).noise
    assert part["verdicts"][0] == [noise.kind, noise.severity]
    with pytest.raises(ImcError, match="had other code"):
        run_benchmark(imc, cases, options(THEIRS.replace("0.05", "0.06")), tmp_path / "out")


BAD = {
    "no file": (None, "does not exist"),
    "no code": ("1 +", "cannot be imported"),
    "no function": ("x = 1", "has no function generators"),
    "no names": ("def generators():\n    return [len]", "has no function generators"),
    "none": ("def generators():\n    return {}", "has no function generators"),
    "it fails": ("def generators():\n    return {'a': 1 / 0}", "failed"),
    "a name of ours": ("def generators():\n    return {'gaussian': len}", "calls a noise 'gaussian'"),
    "a path": ("def generators():\n    return {'../x': len}", "calls a noise"),
    "no noise": ("def generators():\n    return {'clean': len}", "calls a noise 'clean'"),
    "one file for two": ("def generators():\n    return {'a b': len, 'a-b': len}", "two noises whose names"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_brings_no_noise_is_refused_in_a_line(name, tmp_path):
    text, why = BAD[name]
    file = tmp_path / "theirs.py"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ImcError, match=why) as error:
        load_generators(str(file), taken=KINDS)
    assert "\n" not in str(error.value)


def test_a_module_brings_noise_and_no_module_is_refused(monkeypatch, tmp_path):
    (tmp_path / "their_noise.py").write_text(THEIRS)
    monkeypatch.syspath_prepend(tmp_path)
    assert [g.name for g in load_generators("their_noise", taken=KINDS)] == ["others: salt & more"]
    with pytest.raises(ImcError, match="cannot be imported"):
        load_generators("no_such_noise", taken=KINDS)


@pytest.mark.parametrize(
    "function",
    [
        lambda picture, severity, seed: picture[:-1],
        lambda picture, severity, seed: picture / 255,
        lambda picture, severity, seed: None,
        lambda picture, severity, seed: picture[severity * 1000, 0, 0, 0],
    ],
)
def test_what_is_no_picture_is_refused_by_the_noises_name(function):
    with pytest.raises(ImcError, match="the noise theirs ") as error:
        Generator("theirs", function, "")(np.zeros((8, 9, 3), np.uint8), 4, 0)
    assert "\n" not in str(error.value)


def test_a_noise_may_write_into_its_picture():
    picture = np.full((8, 9, 3), 7, np.uint8)

    def spoil(given: np.ndarray, severity: int, seed: int) -> np.ndarray:
        given[:] = 0
        return given

    assert (Generator("theirs", spoil, "")(picture, 1, 0) == 0).all() and (picture == 7).all()
