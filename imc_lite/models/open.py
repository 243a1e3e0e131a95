"""Which implementation runs a model: decided by what is given, without importing the other one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from imc_lite.errors import ImcError, missing

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from imc_lite.models.base import MLLM

HUB_NAME = re.compile(r"\w[\w.-]*/[\w.-]+")
PLUGINS = "imc_lite.models"  # group of entry points, by which other packages bring models
MOST_THREADS = 256
DEVICES, QUANTS = ("auto", "cpu", "cuda"), ("auto", "none", "int8", "int4")


def open_mllm(
    model: Any,
    *,
    processor: Any = None,
    device: str = "auto",
    quant: str = "auto",
    threads: int = 1,
    offline: bool = False,
) -> MLLM:
    """Open "default", the folder of a bundle, a transformers model by name, folder or itself, or a plugin's model.

    A plugin is an entry point of the group `imc_lite.models`. Its name, or NAME:ARGUMENT, is the model's name; it is
    called with the argument ("" without one) and `device`, `threads` and `offline`, and returns an `MLLM`.

    Bundles run on ONNX Runtime and import no torch, but for the default model on CUDA. For the arguments see
    `imc_lite.pipeline.IMC.from_pretrained`.

    Raises:
        ImcError: no such model, not a supported one, or the choice of device, quantization and threads does not fit it.
    """
    for name, value, known in (("device", device, DEVICES), ("quantization", quant, QUANTS)):
        if value not in known:
            raise ImcError(f"no {name} {value!r}; choose one of {', '.join(known)}")
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= MOST_THREADS:
        raise ImcError(f"threads is {threads!r}; give 1 to {MOST_THREADS}")
    if isinstance(model, (str, Path)):
        name = str(model)
        if processor is not None:
            raise ImcError("a processor goes with a loaded model; leave it out with a name")
        if (plugin := find_plugin(name)) is not None:
            if quant not in ("auto", "none"):
                raise ImcError(f"{name.partition(':')[0]} quantizes as it sees fit; leave --quant out")
            return plugin.load()(name.partition(":")[2], device=device, threads=threads, offline=offline)
        if name == "default" or not is_checkpoint(name):
            return _bundle(name, device, quant, threads, offline)
    try:
        from imc_lite.models.hf import load
    except ImportError as error:
        reason: Exception = missing(error, "imc-lite[gpu] or imc-lite[cpu,export]")
        if isinstance(model, (str, Path)) and not Path(model).is_dir():
            reason = ImcError(f"there is no folder {model}, and for a Hugging Face model {reason}")
        raise reason from error
    if isinstance(model, (str, Path)):
        return load.load(name, device=device, quant=quant, offline=offline)
    if quant != "auto" or device != "auto":
        raise ImcError("a loaded model stays where and as it is; leave device and quant out")
    return load.wrap(model, processor)


def open_encoder(
    name: str, *, device: str = "auto", quant: str = "auto", threads: int = 1, offline: bool = False
) -> MLLM:
    """A model that is only asked to name noise. Of the default one, whose bundle holds a language model that has to be
    fetched, the package's own files do where that bundle is not there.

    Args and errors are those of `open_mllm`.
    """
    if name == "default" and device != "cuda" and quant in ("auto", "none"):
        from imc_lite.bundle.store import find_default

        folder = find_default()
        if folder is None:
            from imc_lite.models.default.packaged import DefaultEncoder

            return cast("MLLM", DefaultEncoder(threads))  # of what it lacks nothing is asked
        name = str(folder)  # so that it is not looked for again
    return open_mllm(name, device=device, quant=quant, threads=threads, offline=offline)


def is_checkpoint(name: str) -> bool:
    """Whether a name or folder is a Hugging Face model's rather than a bundle's."""
    folder = Path(name)
    if folder.is_dir():
        return (folder / "config.json").is_file() and not (folder / "manifest.json").is_file()
    return HUB_NAME.fullmatch(name) is not None and not folder.exists()


def find_plugin(name: str) -> EntryPoint | None:
    """The entry point that a model's name means, unless it is `default` or a folder."""
    if name == "default" or Path(name).is_dir():
        return None
    from importlib.metadata import entry_points

    return next(iter(entry_points(group=PLUGINS, name=name.partition(":")[0])), None)


def find_bundle(model: str, *, offline: bool = False, progress: bool = True) -> Path:
    """The folder behind "default" or a path; the default model is built on first use.

    Raises:
        ImcError: no such folder, or the default model cannot be built.
    """
    if model == "default":
        from imc_lite.bundle.store import ensure_default

        return ensure_default(offline=offline, progress=progress)
    if Path(model).is_dir():
        return Path(model)
    raise ImcError(
        f"no model {model[:80]!r}: give `default`, the folder of a bundle or of a Hugging Face model, or its "
        "organisation/name"
    )


def _bundle(name: str, device: str, quant: str, threads: int, offline: bool) -> MLLM:
    from imc_lite.bundle.store import Bundle
    from imc_lite.models.default.onnx import OrtMLLM
    from imc_lite.models.exported.model import ExportedMLLM

    if quant not in ("auto", "none"):
        raise ImcError("a bundle is quantized when it is built; leave --quant out, or give a Hugging Face model")
    bundle = Bundle(find_bundle(name, offline=offline))
    if bundle.manifest.get("kind") == "huggingface":
        return ExportedMLLM(bundle, threads=threads, device=device)
    if device != "cuda":
        return OrtMLLM(bundle, threads=threads)
    try:
        from imc_lite.models.default.torch import DefaultTorchMLLM
        from imc_lite.models.hf.load import pick_device
    except ImportError as error:
        raise missing(error, "imc-lite[gpu]") from error
    return DefaultTorchMLLM(bundle, pick_device(device))
