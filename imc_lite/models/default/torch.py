"""`DefaultTorchMLLM`: the default model's bundle in PyTorch, for a GPU, where PDC runs through the kernels."""

from __future__ import annotations

import json
import threading
from functools import cached_property
from importlib import resources
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from imc_lite.bundle.store import Bundle
from imc_lite.errors import ImcError
from imc_lite.models.base import Perception, check_room
from imc_lite.models.default.onnx import OrtMLLM
from imc_lite.models.default.preprocess import preprocess
from imc_lite.models.default.spec import ENCODER, NO_PICTURE
from imc_lite.models.torch_base import TorchMLLM

Weights = dict[str, torch.Tensor]


class DefaultTorchMLLM(TorchMLLM):
    """The weights that `imc_lite.models.default.onnx.OrtMLLM` runs, from the same files, with the same prototypes.

    Encoder and projector stay float32, noise is read from them; the language model's 8-bit weights are unpacked. Its
    adapter is on where a prompt has a picture.
    """

    statistics: str = "quadrants"
    no_picture = NO_PICTURE  # what has learnt pictures stays on

    def __init__(self, bundle: Bundle, device: str) -> None:
        """Read a bundle onto a device.

        Args:
            bundle: of the default model, its encoder in float32.
            device: of torch; language model in bfloat16 on CUDA (float16 where there is none), float32 on the CPU.

        Raises:
            ImcError: a changed file, or an encoder in 8 bits.
        """
        if "encoder" in bundle.manifest:
            raise ImcError(f"the encoder of {bundle.folder} is in 8 bits, which is for CPUs; give the float32 bundle")
        self.bundle, self.device, self._lock = bundle, torch.device(device), threading.RLock()
        self._onnx = OrtMLLM(bundle)  # tokenizer, prompt and identity are its own; no session is made
        self.id, self.version, self.identity = bundle.id, bundle.version, self._onnx.identity
        self.config, self.rewrites = self._onnx.config, self._onnx.rewrites
        self.ends = list(self.config["prompt"]["end"])
        on_gpu = self.device.type == "cuda"
        half = torch.bfloat16 if on_gpu and torch.cuda.is_bf16_supported() else torch.float16
        self.dtype = half if on_gpu else torch.float32
        self._encoder, self._projector = self._read("encoder"), self._read("projector")

    def prototypes_file(self) -> Any:
        """The bundle's own noise prototypes."""
        return self._onnx.prototypes_file()

    def confidence_file(self) -> Any:
        """The bundle's own fitted confidence."""
        return self._onnx.confidence_file()

    @torch.inference_mode()
    def perceive(self, image: np.ndarray) -> Perception:
        """uint8 [H, W, 3] RGB -> tokens float32 [25, 1280], stats float32 [1664], from one encoder pass."""
        tokens, stats = encode(self._tensor(preprocess(image))[None], self._encoder)
        return Perception(tokens[0].cpu().numpy(), stats[0].cpu().numpy())

    @torch.inference_mode()
    def prefill(self, prompt: str, tokens: np.ndarray | None, room: int) -> tuple[torch.Tensor, Any, int]:
        parts, table = self.config["prompt"], self.model.get_input_embeddings()
        words = [*self.encode(prompt), *parts["turn"]]
        embeds = [table(torch.tensor(ids, device=self.device)) for ids in (parts["prefix"], words)]
        if tokens is not None and len(tokens):
            embeds.insert(1, project(self._tensor(tokens), self._projector).to(self.dtype))
        for module in self.model.modules():
            if isinstance(module, AdaptedLinear):
                module.adapted = tokens is not None
        length = sum(map(len, embeds))
        check_room(length + room, self.config["decoder"]["positions"])
        out = self.model(inputs_embeds=torch.cat(embeds)[None], use_cache=True, logits_to_keep=1)
        return out.logits[0, -1], out.past_key_values, length

    def encode(self, text: str) -> list[int]:
        return self._onnx.encode(text)

    def decode(self, ids: list[int]) -> str:
        return self._onnx.decode(ids)

    @cached_property
    def model(self) -> LlamaForCausalLM:
        """The decoder, read when first needed: naming noise never loads the language model."""
        shape = self.config["decoder"]
        config = LlamaConfig(
            vocab_size=shape["vocab"],
            hidden_size=shape["hidden"],
            intermediate_size=shape["inter"],
            num_hidden_layers=shape["layers"],
            num_attention_heads=shape["heads"],
            num_key_value_heads=shape["kv_heads"],
            head_dim=shape["head_dim"],
            rms_norm_eps=shape["eps"],
            rope_parameters={"rope_type": "default", "rope_theta": shape["rope_theta"]},
            max_position_embeddings=shape["positions"],
            tie_word_embeddings=True,
        )
        weights = _llama(self._read("decoder"), shape)
        with torch.device("meta"):
            model = LlamaForCausalLM(config)
            for name in [name for name, part in model.named_modules() if f"{name}.down" in weights]:
                model.set_submodule(name, AdaptedLinear(*(weights[f"{name}.{n}"].shape for n in ("up", "down"))))
        model.to_empty(device=self.device)
        model.load_state_dict(weights, strict=False)
        model.tie_weights()
        # Tables that are no weights are lost on the meta device.
        model.model.rotary_emb = type(model.model.rotary_emb)(config).to(self.device)
        return torch.nn.Module.to(model, self.dtype).eval()

    def _read(self, graph: str) -> Weights:
        """A graph's weights, by the names and places that `imc_lite.assets` gives them."""
        layout = json.loads((resources.files("imc_lite.assets") / "layout.json").read_text(encoding="utf-8"))
        memory = np.memmap(self.bundle.file(f"{graph}.bin"), np.uint8, "r")
        found = {}
        for entry in layout[graph]:
            count = int(np.prod(entry["shape"])) * np.dtype(entry["dtype"]).itemsize
            part = memory[entry["offset"] : entry["offset"] + count].view(entry["dtype"]).reshape(entry["shape"])
            found[entry["name"]] = torch.from_numpy(np.array(part)).to(self.device)
        return found


class AdaptedLinear(torch.nn.Module):
    """A linear without bias, and a low-rank adapter (LoRA, arXiv 2106.09685) that can be turned off.

    Attributes:
        adapted: whether it is on.
    """

    adapted: bool = False

    def __init__(self, up: torch.Size, down: torch.Size) -> None:
        """Make room for the weights, given the shapes [out, rank] and [rank, in] of the adapter."""
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(up[0], down[1]))
        self.up, self.down = torch.nn.Parameter(torch.empty(up)), torch.nn.Parameter(torch.empty(down))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] -> [..., out]"""
        y = F.linear(x, self.weight)
        return y + F.linear(F.linear(x, self.down), self.up) if self.adapted else y


def encode(pixels: torch.Tensor, weights: Weights) -> tuple[torch.Tensor, torch.Tensor]:
    """EfficientNet-Lite2: float32 [B, 3, 320, 320] -> tokens [B, 25, 1280], stats [B, 1664], as
    `imc_lite.export.graphs.encoder` writes it for ONNX."""

    def conv(x: torch.Tensor, name: str, kernel: int, stride: int, groups: int, act: bool) -> torch.Tensor:
        side = x.shape[2]
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        before, after = total // 2, total - total // 2
        x = F.pad(x, (before, after, before, after))
        y = F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], stride, groups=groups)
        return y.clamp(0, 6) if act else y

    def tap(x: torch.Tensor) -> list[torch.Tensor]:
        cells = x.unflatten(2, (2, -1)).unflatten(4, (2, -1))
        return [v.mean((3, 5)).permute(0, 2, 3, 1).flatten(1) for v in (cells, cells.square())]

    x = conv(pixels, "stem", 3, 2, 1, act=True)
    stats = tap(x)
    for block in ENCODER.blocks:
        y = conv(x, f"{block.name}.expand", 1, 1, 1, act=True) if block.expands else x
        y = conv(y, f"{block.name}.depthwise", block.kernel, block.stride, block.inside, act=True)
        y = conv(y, f"{block.name}.project", 1, 1, 1, act=False)
        x = x + y if block.residual else y
        if block.tapped:
            stats += tap(x)
    x = conv(x, "head", 1, 1, 1, act=True)
    return F.avg_pool2d(x, 2).flatten(2).transpose(1, 2), torch.cat(stats, 1)


def project(tokens: torch.Tensor, weights: Weights) -> torch.Tensor:
    """Tokens float32 [25, 1280] -> embeddings float32 [25, 576]."""
    x = F.layer_norm(tokens, tokens.shape[-1:], weights["norm.weight"], weights["norm.bias"], 1e-5)
    x = F.gelu(x @ weights["fc1.weight"] + weights["fc1.bias"])
    return x @ weights["fc2.weight"] + weights["fc2.bias"] + weights["position"]


def _llama(weights: Weights, shape: dict[str, Any]) -> Weights:
    """The decoder's 8-bit blocks as transformers names and parts them, adapters as `AdaptedLinear` does."""

    def full(name: str) -> torch.Tensor:
        codes, scales = weights[f"{name}.q"], weights[f"{name}.s"]
        return ((codes.float() - 128) * scales[..., None]).flatten(1)

    found = {"model.embed_tokens.weight": full("head"), "model.norm.weight": weights["norm"]}
    rows = [shape["heads"] * shape["head_dim"], *[shape["kv_heads"] * shape["head_dim"]] * 2]
    fused = {
        "qkv": {f"self_attn.{n}_proj": count for n, count in zip("qkv", rows, strict=True)},
        "o": {"self_attn.o_proj": shape["hidden"]},
        "gu": {f"mlp.{n}_proj": shape["inter"] for n in ("gate", "up")},
        "down": {"mlp.down_proj": shape["hidden"]},
    }
    for i in range(shape["layers"]):
        layer = f"model.layers.{i}"
        for short, parts in fused.items():
            down, whole = full(f"l{i}.{short}.low"), full(f"l{i}.{short}")
            for name, part in zip(parts, whole.split([*parts.values()]), strict=True):
                linear = f"{layer}.{name}"
                # What goes into the product is the linear's own input, then the adapter's rows.
                found[f"{linear}.weight"], found[f"{linear}.up"] = part.split([down.shape[1], len(down)], 1)
                found[f"{linear}.down"] = down
        found[f"{layer}.input_layernorm.weight"] = weights[f"l{i}.norm1"]
        found[f"{layer}.post_attention_layernorm.weight"] = weights[f"l{i}.norm2"]
    return found
