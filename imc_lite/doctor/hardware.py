"""Whether processor, memory and graphics driver will do."""

from __future__ import annotations

import platform
import re
from importlib import metadata
from pathlib import Path

from imc_lite.doctor.check import Check, ok, problem, warning
from imc_lite.doctor.machine import cpu, free_memory, gpus, version

# The default model's peak, measured (docs/measured.md); beside it, what Python and a picture take.
DEFAULT_MODEL = 384 << 20
SPARE = 128 << 20
VNNI = ("avx512_vnni", "avx_vnni")
# The oldest driver that runs programs built for a major version of CUDA, on Linux:
# https://docs.nvidia.com/cuda/cuda-toolkit-release-notes/ (minor version compatibility).
OLDEST_DRIVER = {11: (450, 80, 2), 12: (525, 60, 13), 13: (580, 0, 0)}
DRIVER_VERSION = Path("/proc/driver/nvidia/version")


def check_cpu() -> Check:
    found = cpu()
    said = f"{found['model']}, {found['cores']} usable cores"
    if platform.machine().lower() not in ("x86_64", "amd64") or platform.system() != "Linux":
        return ok("cpu", said)
    if not found["avx2"]:
        return warning("cpu", f"{said}, no AVX2: an answer takes several times as long", "use a machine with AVX2")
    if not any(found[flag] for flag in VNNI):
        return ok("cpu", f"{said}, AVX2; no VNNI, so 8-bit arithmetic is slower than on newer ones")
    return ok("cpu", f"{said}, AVX2 and VNNI")


def check_memory() -> Check:
    free = free_memory()
    if free is None:
        return warning("memory", "the system does not say how much is free")
    needs = DEFAULT_MODEL + SPARE
    said = f"{free >> 20:,} MiB free, the default model takes up to {DEFAULT_MODEL >> 20} MiB"
    if free < needs:
        return problem("memory", said, f"free at least {needs >> 20} MiB, or raise the container's limit")
    return ok("memory", said)


def check_gpu() -> list[Check]:
    """The NVIDIA driver against the CUDA that torch was built for, and Triton against torch; nothing is imported."""
    cards, driver = gpus(), driver_version()
    cuda = torch_cuda()
    found = []
    if not cards:
        if cuda is not None:
            detail = f"torch is built for CUDA {cuda}, and there is no NVIDIA card or driver"
            found.append(
                warning(
                    "gpu",
                    detail,
                    "install the driver, or pip install torch --index-url https://download.pytorch.org/whl/cpu",
                )
            )
        else:
            found.append(ok("gpu", "no NVIDIA card; models run on the CPU"))
    elif driver is None:
        found.append(warning("gpu", f"{', '.join(cards)}; the driver does not say its version"))
    elif cuda is None:
        needed = " (torch is not built for CUDA)" if version("torch") else ""
        found.append(ok("gpu", f"{', '.join(cards)}, driver {_dotted(driver)}{needed}"))
    else:
        found.append(_driver_check(cards, driver, cuda))
    triton, wanted = version("triton"), _triton_of_torch()
    if cards and triton is not None and wanted is not None and triton != wanted:
        detail = f"triton {triton} is installed, torch {version('torch')} goes with {wanted}"
        found.append(warning("triton", detail, f"pip install triton=={wanted}"))
    return found


def driver_version(file: Path = DRIVER_VERSION) -> tuple[int, ...] | None:
    """The NVIDIA kernel module's version, such as (550, 54, 15)."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    numbers = re.search(r"Kernel Module\b.*?\s(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(n or 0) for n in numbers.groups()) if numbers else None


def torch_cuda() -> str | None:
    """The version of CUDA that the installed torch was built for, read from its files; None for a CPU build."""
    try:
        file = next((f for f in metadata.files("torch") or () if f.as_posix() == "torch/version.py"), None)
        text = file.read_text(encoding="utf-8") if file else ""
    except (metadata.PackageNotFoundError, OSError):
        return None
    found = re.search(r"^cuda\b[^=\n]*=\s*['\"]([\d.]+)['\"]", text or "", flags=re.M)
    return found[1] if found else None


def oldest_driver(cuda: str) -> tuple[int, ...] | None:
    """The oldest driver for a version of CUDA, None where it is not known here."""
    return OLDEST_DRIVER.get(int(cuda.partition(".")[0]))


def _driver_check(cards: list[str], driver: tuple[int, ...], cuda: str) -> Check:
    oldest = oldest_driver(cuda)
    said = f"{', '.join(cards)}, driver {_dotted(driver)}, torch built for CUDA {cuda}"
    if oldest is None:
        return warning("gpu", f"{said}: whether they fit is not known", "imc-lite doctor --deep tries it")
    if driver < oldest:
        remedy = "update the driver, or install a torch for an older CUDA"
        return problem("gpu", f"{said}, which needs driver {_dotted(oldest)} or newer", remedy)
    return ok("gpu", said)


def _triton_of_torch() -> str | None:
    """The version of Triton that the installed torch asks for."""
    try:
        asked = metadata.requires("torch") or ()
    except metadata.PackageNotFoundError:
        return None
    found = (re.match(r"triton==([\w.]+)", text) for text in asked)
    return next((match[1] for match in found if match), None)


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
