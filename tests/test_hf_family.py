"""A new family is one module (`tests/families/made_up.py`) and one tiny model (here); all else finds it by itself."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx", reason="models are exported with onnx; it comes with imc-lite[export]")

from imc_lite.export.hf import export_checkpoint  # noqa: E402
from tiny_models import LANGUAGE, PATCH, SIZE, VISION, byte_tokenizer, lively  # noqa: E402
from transformers import (  # noqa: E402
    AutoConfig,
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil  # noqa: E402

from imc_lite import ImcError, load_image  # noqa: E402
from imc_lite.models.hf import families  # noqa: E402
from imc_lite.models.open import open_mllm  # noqa: E402

HERE = Path(__file__).parent
PICTURE = next((HERE / "images").glob("*.jpg"))
QUESTION = "Is the heart enlarged?"


class MadeUpConfig(LlavaConfig):
    model_type = "made_up"


class MadeUpForConditionalGeneration(LlavaForConditionalGeneration):
    config_class = MadeUpConfig


def tiny():
    """(model, processor); a LLaVA of another name whose pictures are prepared otherwise."""
    torch.manual_seed(0)
    tokenizer = byte_tokenizer(image_token="<image>")
    config = MadeUpConfig(
        vision_config=CLIPVisionConfig(**VISION).to_dict(),
        text_config={"model_type": "llama", "vocab_size": len(tokenizer), **LANGUAGE},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    sizes = {"size": {"height": SIZE + 8, "width": SIZE + 16}, "crop_size": {"height": SIZE, "width": SIZE}}
    counted = {"vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    processor = LlavaProcessor(CLIPImageProcessorPil(**sizes), tokenizer, patch_size=PATCH, **counted)
    return lively(MadeUpForConditionalGeneration(config)), processor


@pytest.fixture
def checkpoint(tmp_path):
    """On disk, of a type that transformers knows and imc-lite does not yet."""
    AutoConfig.register("made_up", MadeUpConfig, exist_ok=True)
    AutoModelForImageTextToText.register(MadeUpConfig, MadeUpForConditionalGeneration, exist_ok=True)
    for part in tiny():
        part.save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.mark.slow
def test_its_module_is_all_it_takes(checkpoint, tmp_path, monkeypatch):
    with pytest.raises(ImcError, match="'made_up' are not supported; supported families: SmolVLM"):
        open_mllm(checkpoint, offline=True)
    monkeypatch.setattr(families, "__path__", [*families.__path__, str(HERE / "families")])
    monkeypatch.setattr(families, "FAMILIES", families.found())
    assert families.supported().endswith("Qwen3-VL, MadeUp-VL")

    there = open_mllm(checkpoint, offline=True)
    picture = load_image(PICTURE)
    seen = there.perceive(picture)
    with torch.inference_mode():
        plain = there.model(**there.inputs(QUESTION, picture)).logits[0, -1]
    assert torch.allclose(there.prefill(QUESTION, seen.tokens, 0)[0], plain, atol=1e-5)
    assert (there.prefill(QUESTION, seen.tokens[::-1], 0)[0] - plain).abs().max() > 1e-3

    export_checkpoint(str(checkpoint), tmp_path / "bundle", offline=True)
    here = open_mllm(tmp_path / "bundle")
    assert here.config["picture"]["views"] == [[["exact", SIZE + 8, SIZE + 16], ["crop", SIZE, SIZE]]]
    np.testing.assert_allclose(here.perceive(picture).tokens, seen.tokens, atol=1e-4)
    wanted, found = there.generate(QUESTION, seen.tokens, 12), here.generate(QUESTION, seen.tokens, 12)
    assert found.text == wanted.text
    np.testing.assert_allclose(found.logprobs, wanted.logprobs, atol=1e-3)


def test_naming_the_families_loads_nothing_heavy():
    code = (
        "import sys; from imc_lite.models.hf.families import supported; print(supported());"
        "print(sorted({'torch', 'transformers', 'PIL', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names, heavy = done.stdout.splitlines()
    assert names == families.supported() and heavy == "[]"
