"""Random models of every supported family, a few layers each, with processors made here: no download."""

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import (
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.gemma3.processing_gemma3 import Gemma3Processor
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.idefics3.processing_idefics3 import Idefics3Processor
from transformers.models.llava.processing_llava import LlavaProcessor
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_next.processing_llava_next import LlavaNextProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from imc_lite.models.hf.families.qwen import QwenProcessor

SIZE, PATCH = 48, 8
LANGUAGE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
}
LAYERS = ["sliding_attention", "full_attention"]
VISION = {
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 6,
    "num_attention_heads": 2,
    "image_size": SIZE,
    "patch_size": PATCH,
}
SPECIAL = (
    "<s>",
    "</s>",
    "<image>",
    "<fake_token_around_image>",
    "<global-img>",
    "<end_of_utterance>",
    "<|im_start|>",
    "<boi>",
    "<eoi>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<|im_end|>",
)


def tiny(family: str, seed: int = 0):
    """(model, processor) of one of `imc_lite.models.hf.families.FAMILIES`."""
    torch.manual_seed(seed)
    makers = {"smolvlm": _idefics, "idefics3": _idefics, "llava": _llava, "llava_next": _llava, "gemma3": _gemma}
    model, processor = makers.get(family, _qwen)(family)
    return lively(model), processor


def lively(model):
    """Small random weights give nearly the same logits whatever is seen; these do not."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                weight.normal_(0, weight.shape[-1] ** -0.5)
            elif "projection" in name:
                weight.normal_()
    model.generation_config.eos_token_id = 1
    return model.eval()


def byte_tokenizer(**named: str) -> PreTrainedTokenizerFast:
    """Bytes and control tokens."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *letters])}
    inner = Tokenizer(BPE(vocabulary, []))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    inner.add_special_tokens(list(SPECIAL))
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="</s>", extra_special_tokens=named
    )


def _idefics(family: str):
    tokenizer = byte_tokenizer()
    longest = {"longest_edge": SIZE}
    pixels = Idefics3ImageProcessorPil(size=longest, max_image_size=longest)
    processor = Idefics3Processor(pixels, tokenizer, image_seq_len=(SIZE // PATCH) ** 2 // 4)
    kinds = {
        "smolvlm": (SmolVLMConfig, SmolVLMForConditionalGeneration),
        "idefics3": (Idefics3Config, Idefics3ForConditionalGeneration),
    }
    config, model = kinds[family]
    text = {"model_type": "llama", "vocab_size": len(tokenizer), **LANGUAGE}
    ids = {"image_token_id": tokenizer.convert_tokens_to_ids("<image>"), "pad_token_id": 1}
    return model(config(vision_config=VISION, text_config=text, scale_factor=2, **ids)), processor


def _llava(family: str):
    tokenizer = byte_tokenizer(image_token="<image>")
    sizes = {"size": {"shortest_edge": SIZE}, "crop_size": {"height": SIZE, "width": SIZE}}
    text = {"model_type": "llama", "vocab_size": len(tokenizer), **LANGUAGE}
    shared = {"patch_size": PATCH, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    parts = {
        "vision_config": CLIPVisionConfig(**VISION).to_dict(),
        "text_config": text,
        "image_token_index": tokenizer.convert_tokens_to_ids("<image>"),
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
    }
    if family == "llava":
        processor = LlavaProcessor(CLIPImageProcessorPil(**sizes), tokenizer, **shared)
        return LlavaForConditionalGeneration(LlavaConfig(**parts)), processor
    grids = [[SIZE, 2 * SIZE], [2 * SIZE, SIZE], [2 * SIZE, 2 * SIZE]]
    pixels = LlavaNextImageProcessorPil(image_grid_pinpoints=grids, **sizes)
    config = LlavaNextConfig(image_grid_pinpoints=grids, **parts)
    return LlavaNextForConditionalGeneration(config), LlavaNextProcessor(pixels, tokenizer, **shared)


def _qwen(family: str):
    tokenizer = byte_tokenizer(image_token="<|image_pad|>", video_token="<|video_pad|>")
    side = {"shortest_edge": 4 * SIZE * SIZE, "longest_edge": 4 * SIZE * SIZE}
    pixels = Qwen2VLImageProcessorPil(patch_size=PATCH, size=side)
    ids = {f"{n}_token_id": tokenizer.convert_tokens_to_ids(f"<|{n}_pad|>") for n in ("image", "video")}
    ids |= {f"vision_{n}_token_id": tokenizer.convert_tokens_to_ids(f"<|vision_{n}|>") for n in ("start", "end")}
    vision = {
        "depth": 6,
        "hidden_size": 24,
        "intermediate_size": 48,
        "num_heads": 2,
        "patch_size": PATCH,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "out_hidden_size": LANGUAGE["hidden_size"],
    }
    quarter = LANGUAGE["head_dim"] // 4
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [quarter, quarter // 2, quarter // 2]}
    rope["mrope_interleaved"] = family == "qwen3_vl"  # as its checkpoints say, which transformers does not ask
    text = {"vocab_size": len(tokenizer), "bos_token_id": 0, "eos_token_id": 1, "rope_parameters": rope, **LANGUAGE}
    text["num_hidden_layers"] = 3  # Qwen3-VL's deepstack takes two, and one more follows
    processor = QwenProcessor(pixels, tokenizer)
    if family == "qwen2_5_vl":
        vision |= {"window_size": 4 * PATCH, "fullatt_block_indexes": [2, 5]}
        config = Qwen2_5_VLConfig(vision_config=vision, text_config=text, **ids)
        return Qwen2_5_VLForConditionalGeneration(config), processor
    vision |= {"num_position_embeddings": 144, "deepstack_visual_indexes": [1, 3]}
    config = Qwen3VLConfig(vision_config=vision, text_config=text, **ids)
    return Qwen3VLForConditionalGeneration(config), processor


def _gemma(_: str):
    tokenizer = byte_tokenizer(image_token="<image>", boi_token="<boi>", eoi_token="<eoi>")
    pixels = Gemma3ImageProcessorPil(size={"height": SIZE, "width": SIZE})
    processor = Gemma3Processor(pixels, tokenizer, image_seq_length=9)
    config = Gemma3Config(
        vision_config={"model_type": "siglip_vision_model", **VISION},
        text_config={"vocab_size": len(tokenizer), "sliding_window": 16, "layer_types": LAYERS, **LANGUAGE},
        mm_tokens_per_image=9,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        boi_token_index=tokenizer.convert_tokens_to_ids("<boi>"),
        eoi_token_index=tokenizer.convert_tokens_to_ids("<eoi>"),
    )
    return Gemma3ForConditionalGeneration(config), processor
