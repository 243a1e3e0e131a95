"""From a name on a hub, a folder or a loaded model to `HfMLLM`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from imc_lite.bundle.contents import sha256 as file_sha256
from imc_lite.errors import ImcError
from imc_lite.models.hf.families import Family, family_of, supported
from imc_lite.models.hf.model import HfMLLM
from imc_lite.models.hf.parts import drop

# What checkpoints that are quantized already are read with.
PACKAGES = {
    "gptq": ("optimum", "gptqmodel"),
    "awq": ("gptqmodel",),
    "bitsandbytes": ("bitsandbytes", "accelerate"),
    "torchao": ("torchao",),
}
NO_QUANT = ", or --quant none"


def load(
    name: str, *, device: str = "auto", quant: str = "auto", offline: bool = False, language: bool = True
) -> HfMLLM:
    """Load a checkpoint of a supported family; weights from safetensors only, and never code that comes with it.

    Settings of torch and transformers are left as they are: how many threads torch uses (`torch.set_num_threads`), and
    what transformers reports while it loads (`transformers.utils.logging`).

    Args:
        name: "organisation/name" on the Hugging Face hub, or a folder.
        device: "cpu", "cuda", or "auto": CUDA where there is one.
        quant: of the language model: "none", "int8" (torchao, on the CPU), "int4" (bitsandbytes, on CUDA); "auto" is
            int4 on CUDA and none on the CPU, and leaves a checkpoint that is quantized already as it is. Tower and
            projector are never quantized.
        offline: only what is in the hub's cache, or the folder.
        language: False keeps tower and projector alone, for a program that has the language model elsewhere.

    Raises:
        ImcError: not there, not supported, or a library that the choice needs is not installed.
    """
    chosen = pick_device(device)
    source = {"local_files_only": offline or Path(name).is_dir(), "trust_remote_code": False}
    if (Path(name) / "adapter_config.json").exists():
        raise ImcError(f"{name} holds an adapter beside or in place of a model; merge it into the weights first (peft)")
    config = _fetched(AutoConfig.from_pretrained, name, offline, source)
    family = family_of(config.model_type)
    dtype = torch.float32 if chosen == "cpu" else torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    options = source | {"config": config, "dtype": dtype, "use_safetensors": True}
    if not language:
        options["dtype"] = "auto"  # on the CPU and as it is stored, since most of it goes again
    else:
        if chosen == "cuda":
            options["device_map"] = chosen  # straight onto it; that needs accelerate, which a CPU can do without
        options |= _quantized(config, family, chosen, quant)
    options["output_loading_info"] = True
    model, found = _fetched(AutoModelForImageTextToText.from_pretrained, name, offline, options)
    # transformers makes them up at random, and only warns.
    if lacking := sorted(found["missing_keys"]):
        raise ImcError(f"{name} lacks {len(lacking)} of its weights, such as {lacking[0]}; give a whole checkpoint")
    if not language:
        drop(model, family.language)
        model = model.to(chosen, dtype)
    version = _digest(Path(name)) if Path(name).is_dir() else None
    return HfMLLM(model, _fetched(family.load_processor, name, offline, source), name=name, version=version)


def wrap(model: Any, processor: Any) -> HfMLLM:
    """A model that the caller loaded, where and as it is, but put into evaluation mode.

    Raises:
        ImcError: without its processor, or of a family that is not supported.
    """
    if processor is None:
        raise ImcError("a loaded model needs its processor; give from_pretrained(model, processor=...)")
    return HfMLLM(model, processor)


def pick_device(device: str) -> str:
    """The device that is meant: for "auto" CUDA where there is one, else the CPU.

    Raises:
        ImcError: CUDA is asked for and not there.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ImcError("torch finds no CUDA device here; choose --device cpu")
    return device


def _quantized(config: Any, family: Family, device: str, quant: str) -> dict[str, Any]:
    """Options of from_pretrained that quantize the language model and nothing else."""
    if (found := getattr(config, "quantization_config", None)) is not None:
        if quant != "auto":
            raise ImcError(
                "this checkpoint is quantized already; leave --quant out, or give the one that it was made from"
            )
        method = str((found if isinstance(found, dict) else found.to_dict()).get("quant_method"))
        for package in PACKAGES.get(method, ()):
            _need(package, f"a checkpoint quantized by {method}")
        return {}
    if quant == "none" or (quant == "auto" and device == "cpu"):
        return {}
    spared = [family.tower, *family.projectors, "lm_head"]
    if quant == "int8":
        if device != "cpu":
            raise ImcError("int8 runs on the CPU; on CUDA choose --quant int4 or none")
        _need("torchao", "int8", NO_QUANT)
        from torchao.quantization import Int8WeightOnlyConfig
        from transformers import TorchAoConfig

        return {"quantization_config": TorchAoConfig(Int8WeightOnlyConfig(), modules_to_not_convert=spared)}
    if device != "cuda":
        raise ImcError("int4 needs a CUDA device; on the CPU choose --quant int8 or none")
    _need("bitsandbytes", "int4", NO_QUANT)
    from transformers import BitsAndBytesConfig

    # NF4 with double quantization: Dettmers et al. 2023, https://arxiv.org/abs/2305.14314.
    four = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16,
        llm_int8_skip_modules=spared,
    )
    return {"quantization_config": four}


def _need(package: str, what: str, otherwise: str = "") -> None:
    if importlib.util.find_spec(package) is None:
        raise ImcError(f"{what} needs {package}, which is not installed; pip install {package}{otherwise}")


def _digest(folder: Path) -> str:
    """The beginning of a SHA-256 over all weights in a folder: language models of one tower are not the same model."""
    files = [f"{path.name} {file_sha256(path)}" for path in sorted(folder.glob("*.safetensors"))]
    return sha256("\n".join(files).encode()).hexdigest()[:12]


def _fetched(load: Callable[..., Any], name: str, offline: bool, options: dict[str, Any]) -> Any:
    """What a `from_pretrained` gives; whatever goes wrong is said in one line."""
    try:
        return load(name, **options)
    except Exception as error:  # hub, network, configuration and weights each have exceptions of their own
        why = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        where = "in the folder or the hub's cache" if offline or Path(name).is_dir() else "here or on the hub"
        raise ImcError(f"cannot load {name} ({why}); give a model that is {where}; {supported()}") from error
