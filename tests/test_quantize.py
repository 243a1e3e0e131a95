"""The encoder in 8 bits: what it is made of, that it takes the float32 one's place, and when it may not."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from imc_lite import IMC, ImcError, load_image
from imc_lite.bench.data import load_edition
from imc_lite.bundle.copy import copy_bundle
from imc_lite.bundle.store import Bundle
from imc_lite.cli.main import cli
from imc_lite.models.default.onnx import OrtMLLM
from imc_lite.noise.image import apply_to_image
from imc_lite.plan.estimate import plan_bundle

pytest.importorskip("onnx", reason="an encoder in 8 bits is made with onnx; it comes with imc-lite[export]")
from imc_lite.export import quantize

FIRST = 8 * (32 + 16)  # statistics of the stem and of block 0; what block 2 gives is rounded on its way out


@pytest.mark.slow
def test_noise_is_read_from_float32_and_the_rest_is_near(default_bundle, default_model, chest, tmp_path):
    """Few pictures give the ranges here, so the tokens are only near."""
    copy_bundle(default_bundle, tmp_path / "b")
    fitted, held = quantize.split(quantize.load_edition())
    assert len(fitted) == quantize.CALIBRATION and not {c.path for c in fitted} & {c.path for c in held}
    source, made = default_bundle / "encoder.onnx", tmp_path / "b" / "encoder.onnx"
    quantize.quantize_graph(source, made, quantize.samples(fitted[:8]), quantize.KEPT, quantize.BITS)
    assert made.with_suffix(".bin").stat().st_size < 0.3 * source.with_suffix(".bin").stat().st_size
    facts = {k: v for k, v in default_model.bundle.manifest.items() if k not in ("format", "files")}
    quantize.write_manifest(tmp_path / "b", facts)
    image = load_image(chest)
    model = OrtMLLM(tmp_path / "b")
    a, b = default_model.perceive(image), model.perceive(image)
    assert np.array_equal(model.noise_statistics(image), b.stats)  # its own, and not those of the graph it came from
    np.testing.assert_allclose(b.stats[:FIRST], a.stats[:FIRST], rtol=1e-4, atol=1e-5)
    assert not np.array_equal(a.tokens, b.tokens)
    assert np.sqrt(((a.tokens - b.tokens) ** 2).mean() / (a.tokens**2).mean()) < 0.3


@pytest.mark.slow
def test_an_encoder_that_names_noise_worse_is_not_written(default_bundle, tmp_path, monkeypatch):
    """Rounded throughout, with ranges taken from grey pictures, it cuts off what others hold."""
    monkeypatch.setattr(quantize, "KEPT", "")
    monkeypatch.setattr(quantize, "samples", lambda _: [np.zeros((1, 3, 320, 320), np.float32)])
    monkeypatch.setattr(quantize, "CALIBRATION", 247)
    with pytest.raises(ImcError, match="nothing is written"):
        quantize.quantize_encoder(default_bundle, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_only_the_known_encoder_is_quantized(default_bundle, tmp_path):
    with pytest.raises(ImcError, match="only the default model's encoder"):
        quantize.quantize_graph(
            default_bundle / "projector.onnx", tmp_path / "p.onnx", [], quantize.KEPT, quantize.BITS
        )


@pytest.mark.slow
def test_the_command_writes_a_bundle_that_takes_the_prototypes(
    default_bundle, default_model, chest, tmp_path, monkeypatch
):
    """On every fifth of the packaged pictures; all of them take minutes."""
    monkeypatch.setattr(quantize, "load_edition", lambda: load_edition()[::5])
    monkeypatch.setattr(quantize, "CALIBRATION", 24)
    folder = tmp_path / "model"
    done = CliRunner().invoke(cli, ["export", "default", "--precision", "int8", "-o", str(folder)])
    assert (done.exit_code, done.stdout, done.stderr) == (0, f"{folder}\n", "")
    made = Bundle(folder)
    said = made.manifest["encoder"]
    assert said["precision"] == "int8" and said["of"] == default_model.bundle.files["encoder.bin"]["sha256"]
    assert said["named_right"]["int8"] >= said["named_right"]["float32"] - quantize.MOST_LOST
    again = CliRunner().invoke(cli, ["export", str(folder), "--precision", "fp32", "-o", str(tmp_path / "again")])
    assert "is in 8 bits and stays so" in str(again.exception) and not (tmp_path / "again").exists()
    assert plan_bundle(str(folder)).parameters["vision tower"] is None
    assert made.version == f"{default_model.version}-int8" and all(made.file(name) for name in made.files)
    assert {p.stat().st_mode for p in folder.iterdir()} == {(folder / "manifest.json").stat().st_mode}
    imc = IMC.from_pretrained(folder)
    noisy = apply_to_image(load_image(chest), "impulse", 4, 0)
    result = imc.answer(noisy, "What modality is this?")
    assert (result.answer, result.image.noise.kind) == ("x-ray", "impulse") and result.image.restored
    assert json.loads((folder / "manifest.json").read_text())["id"] == "default"
    for source, destination, why in (
        (folder, tmp_path / "again", "8 bits already"),
        (default_bundle, folder, "there already"),
    ):
        with pytest.raises(ImcError, match=why):
            quantize.quantize_encoder(source, destination)
