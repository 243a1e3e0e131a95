"""ONNX Runtime sessions over the graphs of a bundle."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from imc_lite.bundle.store import Bundle
from imc_lite.errors import ImcError
from imc_lite.models.deadline import Deadline

if TYPE_CHECKING:
    import onnxruntime

    from imc_lite.pdc.remedies import LowRankMap

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
BLOCKED = np.float32(-1e4)  # in an attention bias: what may not be seen


class Sessions:
    """The sessions of one bundle, each made when it is first asked for, by whichever thread comes first."""

    def __init__(self, bundle: Bundle, threads: int, device: str) -> None:
        """Nothing is loaded yet.

        Args:
            bundle: the graphs' folder.
            threads: intra-op threads on the CPU.
            device: "cpu", "cuda", or "auto": CUDA where ONNX Runtime has it.
        """
        self.bundle, self.threads, self.device = bundle, threads, device
        self._lock = threading.Lock()
        self._made: dict[str, onnxruntime.InferenceSession] = {}

    def __getitem__(self, graph: str) -> onnxruntime.InferenceSession:
        """The session over one graph, its files checked.

        Raises:
            ImcError: a file is missing or was changed, ONNX Runtime is not installed or cannot load the graph, or there
                is no CUDA where it was asked for.
        """
        return self.made(graph, partial(self._open, graph))

    def made(self, name: str, make: Callable[[], onnxruntime.InferenceSession]) -> onnxruntime.InferenceSession:
        """The session of that name, made by `make` where there is none yet."""
        with self._lock:
            if name not in self._made:
                self._made[name] = make()
            return self._made[name]

    @property
    def on_gpu(self) -> bool:
        """Whether there is CUDA, and it may be used.

        Raises:
            ImcError: ONNX Runtime is not installed, or there is no CUDA where it was asked for.
        """
        return self.device != "cpu" and CUDA in self._providers(runtime().get_available_providers())

    def _open(self, graph: str) -> onnxruntime.InferenceSession:
        providers = self._providers(runtime().get_available_providers())
        path = self.bundle.file(f"{graph}.onnx")
        if f"{graph}.bin" in self.bundle.files:
            self.bundle.file(f"{graph}.bin")
        try:
            session = open_session(path.name, str(path), self.threads, providers)
        except ImcError:
            if self.device == "cuda" or providers == [CPU]:
                raise
            session = open_session(path.name, str(path), self.threads, [CPU])  # CUDA is there and does not start
        # A provider that is listed may still fail to start; the session says what it got.
        if self.device == "cuda" and CUDA not in session.get_providers():
            raise ImcError("onnxruntime finds no CUDA device here; choose --device cpu")
        return session

    def _providers(self, available: list[str]) -> list[str]:
        if self.device == "cpu" or CUDA not in available:
            if self.device == "cuda":
                raise ImcError("this onnxruntime has no CUDA; install imc-lite[gpu], or choose --device cpu")
            return [CPU]
        return [CUDA, CPU]


def runtime() -> Any:
    """The module `onnxruntime`, which reports to nobody.

    Raises:
        ImcError: it is not installed.
    """
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise ImcError("onnxruntime is not installed; install imc-lite[cpu] or imc-lite[gpu]") from error
    # It is off already, unless ONNX Runtime was imported before imc_lite; then this keeps sessions out of it.
    ort.disable_telemetry_events()
    return ort


def open_session(
    name: str,
    graph: str | bytes,
    threads: int,
    providers: list[str],
    weights: dict[str, onnxruntime.OrtValue] | None = None,
    folder: Path | None = None,
) -> onnxruntime.InferenceSession:
    """A session over one graph: so many threads inside an operator, one operator at a time, nothing said but errors.

    Args:
        name: of the graph, for an error.
        graph: the path of its file, or what is in it.
        threads: intra-op threads on the CPU.
        providers: that may run it, the first that can.
        weights: those that the graph says lie in another file; the session may read them where they lie.
        folder: where that file lies, of a graph that does not come from a file itself.

    Raises:
        ImcError: ONNX Runtime is not installed, or cannot load the graph.
    """
    ort = runtime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # A plan of the memory of each length that a text can have is kept, and following it takes longer than having none.
    options.enable_mem_pattern = False
    try:
        if weights is not None:
            options.add_external_initializers(list(weights), list(weights.values()))
        if folder is not None:
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
        # Its own way back to the CPU prints to stdout, where answers go.
        return ort.InferenceSession(graph, options, providers, enable_fallback=0)
    except Exception as error:  # ONNX Runtime raises bare pybind types
        raise ImcError(f"ONNX Runtime cannot load {name} ({str(error).splitlines()[0]})") from error


@contextmanager
def interruptible(deadline: Deadline) -> Iterator[onnxruntime.RunOptions]:
    """Options of one pass that ends within an operator when the deadline is over.

    Raises:
        DeadlineError: it was.
    """
    import onnxruntime as ort

    options = ort.RunOptions()
    with deadline.interrupting(lambda: setattr(options, "terminate", True)):
        yield options


def calibrated(session: onnxruntime.InferenceSession, tokens: np.ndarray, low_rank_map: LowRankMap) -> np.ndarray:
    """float32 [N, D] -> float32 [N, D], through one map, by a session over calibrate.onnx."""
    feeds = {"x": tokens, "down": low_rank_map.down, "up": low_rank_map.up}
    return session.run(["y"], feeds | {"offset": low_rank_map.offset, "shift": low_rank_map.shift})[0]
