"""A LLaVA whose tower learns from the default model's encoder: its prompt, its pictures, and that it does learn."""

import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from imc_lite.images.load import load_image
from imc_lite.models.default.preprocess import preprocess
from imc_lite.models.hf.load import load

sys.path.insert(0, str(Path(__file__).parent.parent / "recipes"))
import distil_vit as recipe

VOCABULARY = 49152


@pytest.fixture(scope="module")
def processor(default_bundle):
    return recipe.processor_of(Tokenizer.from_file(str(default_bundle / "tokenizer.json")))


@pytest.fixture(scope="module")
def student():
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    lm = LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, tie_word_embeddings=True, **size)).eval()
    return lm, recipe.student(lm, {"<image>": VOCABULARY, "<|im_end|>": 2}).eval()


def test_its_checkpoint_asks_as_the_default_model_does(default_model, processor, student, chest, tmp_path):
    lm, made = student
    made.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    model = load(str(tmp_path), device="cpu", offline=True)
    image, question = load_image(chest), "Is the heart enlarged? <image>"
    given = model.inputs(question, image)
    parts = default_model.config["prompt"]
    words = [*model.encode(question), *parts["turn"]]
    assert given["input_ids"][0].tolist() == [*parts["prefix"], *[VOCABULARY] * 100, *words]
    assert model.ends == parts["end"] and model.perceive(image).tokens.shape == (100, 256)
    # Its language model is the one that it was made from.
    ids = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        assert torch.allclose(model.model(input_ids=ids).logits[..., :VOCABULARY], lm(input_ids=ids).logits, atol=1e-5)


def test_its_processor_shows_it_what_views_do(processor, chest):
    """A wide picture on a black square, as the teacher has it."""
    image = load_image(chest)[40:200]
    shown = processor.image_processor([Image.fromarray(image)], return_tensors="np")["pixel_values"][0]
    teacher = (preprocess(image) * 128 + 127) / 255
    difference = np.abs(shown * recipe.PIXELS["std"] + recipe.PIXELS["mean"] - teacher)
    assert shown.shape == (3, 320, 320) and shown[:, 0].max() == 0 and difference.mean() < 0.01


def test_four_tokens_of_the_student_are_one_of_the_teacher(tmp_path):
    held = recipe.Views(tmp_path, "val", 1, 3)
    held.embeddings[0] = np.arange(25)[:, None] + np.array([0, 0.25, 0.5])
    wanted = held.wanted(np.array([0]))
    for row, column in ((0, 0), (3, 9), (9, 4)):
        assert wanted[0, 10 * row + column].tolist() == [5 * (row // 2) + column // 2 + x for x in (0, 0.25, 0.5)]


def test_it_learns_what_it_is_taught_and_goes_on_where_it_stopped(student, tmp_path):
    rng = np.random.default_rng(0)
    views = recipe.Views(tmp_path, "train", 8, 32)
    views.pixels[:] = rng.integers(0, 256, (8, 1, 1, 3))
    views.embeddings[:] = views.pixels[:, 0, 0, :1, None] / 64 - 2 + 0.1 * rng.normal(size=(25, 32))
    args = Namespace(epochs=12, batch=8, rate=1e-3, decay=0.0, warmup=2, deadline=1e9, fast=False, seed=0)
    args.out, args.log_every = tmp_path, 6
    log = recipe.train(recipe.Seeing(student[1]), views, views, args)
    assert [row["step"] for row in log] == [6, 12] and log[1]["explained"] > log[0]["explained"]
    assert log[1]["loss"] < 0.8 * log[0]["loss"]
    args.epochs = 13
    assert [row["step"] for row in recipe.train(recipe.Seeing(student[1]), views, views, args)] == [6, 12, 13]
