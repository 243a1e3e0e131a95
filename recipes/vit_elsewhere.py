"""The checkpoint of recipes/distil_vit.py as vLLM and llama.cpp read it.

    python recipes/vit_elsewhere.py --checkpoint runs/vit/checkpoint -o runs/vit/elsewhere

`elsewhere/checkpoint` is the same with the names that a CLIP tower's weights have on the hub: vLLM 0.32 does not know
those that transformers 5 writes. `elsewhere/mmproj.gguf` holds tower and projector for llama.cpp (`--mmproj`), whose
own converter knows no CLIP towers any more, but makes the language model: `convert_hf_to_gguf.py
runs/vit/elsewhere/checkpoint --outtype f16 --outfile runs/vit/elsewhere/lm.gguf`. Names and keys:
tools/mtmd/clip-impl.h of llama.cpp.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from pathlib import Path

import numpy as np
from gguf import GGUFWriter
from safetensors.numpy import load_file, save_file

# Below the tower and the projector, and what llama.cpp calls it.
NAMES = {
    "embeddings.class_embedding": "v.class_embd",
    "embeddings.patch_embedding.weight": "v.patch_embd.weight",
    "embeddings.position_embedding.weight": "v.position_embd.weight",
    "pre_layrnorm": "v.pre_ln",
    "linear_1": "mm.0",
    "linear_2": "mm.2",
}
IN_A_BLOCK = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out",
    "layer_norm1": "ln1",
    "layer_norm2": "ln2",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
}
BLOCK = re.compile(r"encoder\.layers\.(\d+)\.(.+)")


def named(key: str) -> str | None:
    """llama.cpp's name of a weight; None for what it does not read."""
    part = re.sub(r"^(model\.)?(vision_tower|multi_modal_projector)\.(vision_model\.)?", "", key)
    if part == key:
        return None
    if part in NAMES:
        return NAMES[part]
    stem, _, kind = part.rpartition(".")
    if found := BLOCK.fullmatch(stem):
        return f"v.blk.{found[1]}.{IN_A_BLOCK[found[2]]}.{kind}"
    return f"{NAMES[stem]}.{kind}" if stem in NAMES else None


def write_mmproj(checkpoint: Path, weights: dict[str, np.ndarray], out: Path) -> None:
    """Tower and projector in a GGUF file."""
    config = json.loads((checkpoint / "config.json").read_text())
    pixels = json.loads((checkpoint / "processor_config.json").read_text())["image_processor"]
    vision = config["vision_config"]
    writer = GGUFWriter(out, "clip")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "mlp")
    writer.add_bool("clip.use_gelu", vision["hidden_act"] == "gelu")
    for key, value in {
        "image_size": vision["image_size"],
        "patch_size": vision["patch_size"],
        "embedding_length": vision["hidden_size"],
        "feed_forward_length": vision["intermediate_size"],
        "block_count": vision["num_hidden_layers"],
        "attention.head_count": vision["num_attention_heads"],
        "projection_dim": config["text_config"]["hidden_size"],
    }.items():
        writer.add_uint32(f"clip.vision.{key}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", vision["layer_norm_eps"])
    # It counts from the tower's input; the checkpoint from the end.
    writer.add_array("clip.vision.feature_layer", [vision["num_hidden_layers"] + 1 + config["vision_feature_layer"]])
    writer.add_array("clip.vision.image_mean", pixels["image_mean"])
    writer.add_array("clip.vision.image_std", pixels["image_std"])
    for key, weight in weights.items():
        if (name := named(key)) is not None:
            writer.add_tensor(name, weight.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    weights = load_file(args.checkpoint / "model.safetensors")
    folder = args.out / "checkpoint"
    shutil.copytree(args.checkpoint, folder, dirs_exist_ok=True)
    on_the_hub = {
        re.sub(r"vision_tower\.(?!vision_model)", "vision_tower.vision_model.", k): w for k, w in weights.items()
    }
    save_file(on_the_hub, folder / "model.safetensors", {"format": "pt"})
    write_mmproj(folder, weights, args.out / "mmproj.gguf")


if __name__ == "__main__":
    main()
