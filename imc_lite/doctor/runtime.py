"""ONNX Runtime, and on request torch, at work on something tiny."""

from __future__ import annotations

from importlib import resources

import numpy as np

from imc_lite.doctor.check import Check, ok, problem, warning
from imc_lite.doctor.machine import gpus, providers, version
from imc_lite.doctor.packages import check_runtimes

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
REINSTALL = "pip install --force-reinstall 'imc-lite[cpu]', or with a GPU 'imc-lite[gpu]'"


def check_onnxruntime() -> list[Check]:
    """Whether it is there, computes what it should, and can use the providers that it carries."""
    installed = check_runtimes()
    if installed.state != "ok":
        return [installed]
    try:
        _, right = run_calibration(CPU)
    except Exception as error:  # ONNX Runtime raises bare pybind types, and ImportError where a library is missing
        return [problem("onnxruntime", f"{installed.detail}, but it does not run ({type(error).__name__})", REINSTALL)]
    if not right:
        return [problem("onnxruntime", f"{installed.detail}, but it computes something else", REINSTALL)]
    return [ok("onnxruntime", f"{installed.detail}, a small graph gives what it should"), _providers_check()]


def run_calibration(provider: str) -> tuple[str, bool]:
    """Run the packaged calibration graph; the provider that ran it, and whether it gave x + (x D - offset) U + shift.

    Raises:
        Exception: whatever ONNX Runtime raises.
    """
    import onnxruntime as ort

    ort.disable_telemetry_events()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    graph = resources.files("imc_lite.assets").joinpath("calibrate.onnx").read_bytes()
    session = ort.InferenceSession(graph, options, list(dict.fromkeys([provider, CPU])), enable_fallback=0)
    random = np.random.default_rng(0)
    x, down, up = (random.standard_normal(shape).astype(np.float32) for shape in ((5, 16), (16, 4), (4, 16)))
    offset, shift = (random.standard_normal(n).astype(np.float32) for n in (4, 16))
    y = session.run(["y"], {"x": x, "down": down, "up": up, "offset": offset, "shift": shift})[0]
    return session.get_providers()[0], bool(np.allclose(y, x + (x @ down - offset) @ up + shift, atol=1e-3))


def check_torch() -> Check:
    """`--deep`: import torch, and where it sees a card, have it and the package's Triton kernels compute there."""
    if version("torch") is None:
        return ok("torch", "is not installed; the default model and bundles do without")
    try:
        import torch

        if not torch.cuda.is_available():
            state = warning if gpus() else ok
            return state("torch", f"{torch.__version__} imports; it sees no CUDA device")
        right = run_kernels("cuda")
        card = torch.cuda.get_device_name()
    except Exception as error:  # libraries that are missing, a driver that is too old, an architecture left out
        said = f"{version('torch')} fails on something tiny ({type(error).__name__})"
        return problem("torch", said, "install a torch and Triton built for this driver and card")
    if not right:
        return problem("torch", f"{version('torch')} computes something else on {card}", "check driver and card")
    return ok("torch", f"{torch.__version__} on {card}: every Triton kernel gives what it should")


def run_kernels(device: str) -> bool:
    """Whether every kernel's operator, on tensors of a few elements, agrees with its formula in float64.

    Raises:
        Exception: whatever torch or Triton raises.
    """
    import torch

    from imc_lite.kernels.registry import error, kernels

    for kernel in kernels():
        given = kernel.inputs(kernel.odd_shapes[0], torch.float32, device, 0)
        pairs = zip(kernel.operator(*given), kernel.exact(*given), strict=True)
        if not all(error(found, exact) <= kernel.tolerance[torch.float32] for found, exact in pairs):
            return False
    return True


def _providers_check() -> Check:
    carried = providers()
    if "cuda" not in carried:
        return ok("providers", f"carried and usable: {', '.join(carried)}")
    if not gpus():
        return warning("providers", "CUDA is carried and there is no NVIDIA card; sessions run on the CPU")
    try:
        used, right = run_calibration(CUDA)
    except Exception:
        used, right = CPU, False
    if used == CUDA and right:
        return ok("providers", "carried and usable: cpu, cuda")
    remedy = "install the CUDA and cuDNN that this ONNX Runtime was built for: https://onnxruntime.ai/docs/install/"
    return warning("providers", "CUDA is carried and does not start; sessions run on the CPU", remedy)
