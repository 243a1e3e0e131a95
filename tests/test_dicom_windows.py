"""Three windows of a CT in red, green and blue, exact to the grey level; and prototypes that know their window."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from imc_lite import IMC, ImcError, load_image
from imc_lite.cli.main import cli
from imc_lite.images.dicom.windows import canonical, channel_windows
from imc_lite.pdc.prototypes import load_prototypes

pytest.importorskip("pydicom", reason="DICOM is read with imc-lite[dicom]")
from dicom_files import make, ramp, written

# Centre and width of each channel; https://arxiv.org/abs/2507.05201, section 2.1, gives width and level.
MEDGEMMA = ((-100, 2250), (40, 350), (40, 80))
HU = {"RescaleSlope": 1, "RescaleIntercept": 0}


def linear(values: np.ndarray, centre: float, width: float) -> np.ndarray:
    """The window function of PS3.3 C.11.2.1.2.1, from 0 to 255."""
    y = ((values - (centre - 0.5)) / (width - 1) + 0.5) * 255
    return np.rint(np.clip(y, 0, 255)).astype(np.uint8)


def three(values: np.ndarray) -> np.ndarray:
    return np.stack([linear(values, *window) for window in MEDGEMMA], axis=-1)


def ct(values: np.ndarray | None = None, **elements) -> bytes:
    return written(make(ramp(-1400, 1400) if values is None else values, **HU | elements))


def test_each_channel_is_its_own_window():
    stored = ramp(-1400, 1400)
    got = load_image(ct(stored), window="medgemma-ct")
    assert got.dtype == np.uint8 and np.array_equal(got, three(stored.astype(float)))
    assert len(np.unique(got[0], axis=0)) > 256  # more is told apart than in any picture of one window
    for i, window in enumerate(("-100,2250", "40,350", "40,80")):
        assert np.array_equal(got[..., i], load_image(ct(stored), window=window)[..., 0])
    assert np.array_equal(got, load_image(ct(stored), window="-100,2250:40,350:40,80"))
    named = load_image(ct(stored), window="lung:soft-tissue:bone")
    assert np.array_equal(named, np.stack([linear(stored, *w) for w in ((-600, 1500), (50, 400), (400, 1800))], -1))


def test_twelve_bits_and_a_rescale():
    stored = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    dirty = stored | 0xA000  # bits that do not count
    data = ct(dirty, BitsStored=12, HighBit=11, RescaleSlope=2, RescaleIntercept=-4096)
    assert np.array_equal(load_image(data, window="medgemma-ct"), three(2.0 * stored - 4096))


def test_inverted_and_padding():
    stored = ramp(-1400, 1400)
    inverted = load_image(ct(stored, PhotometricInterpretation="MONOCHROME1"), window="medgemma-ct")
    assert np.array_equal(inverted, 255 - three(stored))
    stored[:, :100] = -2000
    dataset = ct(stored, PixelPaddingValue=-2000, PhotometricInterpretation="MONOCHROME1")
    padded = load_image(dataset, window="medgemma-ct")
    expected = 255 - three(stored)
    expected[:, :100] = 0
    assert np.array_equal(padded, expected)


def test_the_recipe_of_medgemma_1_5_is_that_of_googles_notebook():
    stored = ramp(-1400, 1400)
    got = load_image(ct(stored), window="medgemma-1.5-ct").astype(float)
    ends = ((-1024, 1024), (-135, 215), (0, 80))
    theirs = np.rint(np.stack([(np.clip(stored, *e) - e[0]) * (255.0 / (e[1] - e[0])) for e in ends], axis=-1))
    assert np.abs(got - theirs).max((0, 1)).tolist() == [1, 1, 4]  # DICOM's window ends one unit lower


def test_one_channel_may_be_of_one_grey_and_all_may_not():
    air = np.linspace(-1000, -900, 400, dtype=np.int16).reshape(20, 20)
    got = load_image(ct(air), window="medgemma-ct")
    assert len(np.unique(got[..., 0])) > 5 and not got[..., 1:].any()
    with pytest.raises(ImcError, match=r"one grey by --window 900,2:900,3:900,4, its values go from -1000 to -900"):
        load_image(ct(air), window="900,2:900,3:900,4")


@pytest.mark.parametrize(
    ("elements", "why"),
    [
        ({"Modality": "MR"}, r"it is no CT \(Modality MR\)"),
        ({"Modality": None}, "it names no Modality"),
        ({"RescaleSlope": None}, "no RescaleSlope and RescaleIntercept"),
        ({"RescaleIntercept": None}, "no RescaleSlope and RescaleIntercept"),
        ({"RescaleSlope": 0}, "RescaleSlope is not usable"),
        ({"RescaleType": "Z_EFF"}, "RescaleType names other units"),
    ],
    ids=str,
)
def test_what_is_not_in_hounsfield_units_is_refused(elements, why):
    given = HU | elements
    dataset = make(ramp(), **{k: v for k, v in given.items() if v is not None})
    for key, value in given.items():
        if value is None and key in dataset:
            delattr(dataset, key)
    with pytest.raises(ImcError, match=f"not in Hounsfield units, .*{why}.*three windows are for CT"):
        load_image(written(dataset), window="medgemma-ct")


@pytest.mark.parametrize("units", ["HU", "us", ""])
def test_units_that_are_hounsfields_or_unspecified(units):
    assert load_image(ct(RescaleType=units), window="medgemma-ct").any()


def test_colours_pictures_and_words_that_are_no_windows():
    with pytest.raises(ImcError, match="colour picture"):
        load_image(written(make(np.zeros((4, 4, 3), np.uint8))), window="medgemma-ct")
    with pytest.raises(ImcError, match="is not DICOM"):
        load_image(np.zeros((4, 4), np.uint8), window="medgemma-ct")
    for bad in ("lung:bone", "lung:bone:brain:lung", "::", "lung:medgemma-ct:bone", "lung:40:bone"):
        with pytest.raises(ImcError, match=r"is no window|windows; give one, or three"):
            load_image(ct(), window=bad)


def test_one_spelling_for_all():
    assert canonical("lung") == canonical(" -600.0 , 1500") == "-600,1500"
    assert canonical("full:40.5,80:brain") == "full:40.5,80:40,80"
    assert canonical("medgemma-ct") == ":".join(f"{c},{w}" for c, w in MEDGEMMA)
    assert channel_windows("bone") == ("bone",) and len(channel_windows("medgemma-1.5-ct")) == 3
    assert canonical(canonical("medgemma-1.5-ct")) == canonical("medgemma-1.5-ct")


# Prototypes


@pytest.fixture(scope="module")
def fitted(default_model, tmp_path_factory) -> Path:
    """The default model's prototypes, as if they had been built with a window."""
    ours = load_prototypes(default_model.prototypes_file(), default_model.identity)
    file = tmp_path_factory.mktemp("prototypes") / "ct.safetensors"
    replace(ours, facts={**ours.facts, "window": canonical("medgemma-ct")}).save(file)
    return file


def test_prototypes_refuse_another_window(default_model, fitted, chest):
    imc = IMC(default_model, load_prototypes(fitted, default_model.identity), sms=False)
    scan = ct()
    assert imc.inspect(scan, window="medgemma-ct").noise is not None
    assert imc.inspect(scan, window="-100,2250:40,350:40,80").noise is not None
    remedy = r"built with --window -100,2250:40,350:40,80 .* give --window -100,2250:40,350:40,80"
    for window, way in (("lung", "--window -600,1500"), (None, "the file's own window")):
        with pytest.raises(ImcError, match=f"{remedy}") as refused:
            imc.inspect(scan, window=window)
        assert f"shown with {way}" in str(refused.value)
        with pytest.raises(ImcError, match=remedy):
            imc.answer(scan, "Is this a ct?", window=window)
    # What has no window of its own is judged as ever.
    for picture in (chest, load_image(scan), written(make(np.zeros((8, 8, 3), np.uint8)))):
        assert imc.inspect(picture).noise is not None
    assert IMC(default_model, sms=False).see(load_image(scan)).report.noise is None


def test_prototypes_without_a_window_take_every_one(default_model):
    ours = load_prototypes(default_model.prototypes_file(), default_model.identity)
    assert "window" not in ours.facts
    for window in (None, "own", "-600,1500", canonical("medgemma-ct")):
        ours.check_window(window)


@pytest.mark.parametrize("window", ["no window", 5, "lung"])
def test_a_window_that_no_build_writes_is_refused(window, default_model, tmp_path):
    ours = load_prototypes(default_model.prototypes_file(), default_model.identity)
    replace(ours, facts={**ours.facts, "window": window}).save(tmp_path / "p.safetensors")
    with pytest.raises(ImcError, match="no readable prototypes"):
        load_prototypes(tmp_path / "p.safetensors", default_model.identity)


def test_commands_take_three_windows(default_bundle, fitted, tmp_path):
    scan, out = tmp_path / "scan", tmp_path / "out.png"
    scan.write_bytes(ct())
    noise = ["noise", str(scan), "--kind", "impulse", "--window", "medgemma-ct", "-o", str(out)]
    assert CliRunner().invoke(cli, noise).exit_code == 0
    pixels = np.asarray(Image.open(out))
    assert (np.ptp(pixels.astype(int), axis=2) > 0).mean() > 0.2  # in colours
    ask = ["answer", str(scan), "Is this a ct?", "--prototypes", str(fitted), "--offline", "--no-sms"]
    done = CliRunner().invoke(cli, [*ask, "--window", "medgemma-ct", "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout)["image"]["noise"] is not None
    refused = CliRunner().invoke(cli, ask)
    assert isinstance(refused.exception, ImcError) and "the file's own window" in str(refused.exception)
    assert CliRunner().invoke(cli, [*ask[:3], "--no-pdc", "--no-sms", "--offline"]).exit_code == 0


def test_a_batch_of_png_and_dicom(default_bundle, fitted, chest, tmp_path):
    (tmp_path / "scan").write_bytes(ct())
    base = {"question": "What modality is this?"}
    rows = [
        base | {"image": "scan", "window": "medgemma-ct"},
        base | {"image": str(chest)},
        base | {"image": "scan"},
        base | {"image": str(chest), "window": "medgemma-ct"},
    ]
    cases = tmp_path / "cases.jsonl"
    cases.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["answer", "--batch", str(cases), "--prototypes", str(fitted), "--offline", "--no-sms"]
    assert CliRunner().invoke(cli, [*command, "-o", str(tmp_path / "out.jsonl")]).exit_code == 0
    errors = [json.loads(line).get("error", "") for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert errors[:2] == ["", ""] and "built with --window" in errors[2] and "is not DICOM" in errors[3]
