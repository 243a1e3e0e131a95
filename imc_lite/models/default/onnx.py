"""`OrtMLLM`: a bundle run by ONNX Runtime, without torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from imc_lite.bundle.store import Bundle
from imc_lite.errors import ImcError
from imc_lite.models.base import Generation, Perception
from imc_lite.models.greedy import greedy, log_softmax

if TYPE_CHECKING:
    import onnxruntime

    from imc_lite.pdc.matcher import Matcher
    from imc_lite.pdc.prototypes import Transport

BLOCKED = np.float32(-1e4)
CACHE_STEP = 256


class OrtMLLM:
    """The default model, or any bundle, on ONNX Runtime. Implements `imc_lite.models.base.MLLM`.

    Sessions are made when first needed: naming noise never loads the language model.
    """

    statistics = "quadrants"
    runtime = ("onnxruntime",)

    def __init__(self, bundle: Path | Bundle, threads: int = 1) -> None:
        """Open a bundle.

        Args:
            bundle: its folder.
            threads: intra-op threads; more than the physical cores slows it down.

        Raises:
            ImcError: not a bundle, a changed file, or ONNX Runtime is not installed.
        """
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle(bundle)
        self.threads = threads
        self.id, self.version = self.bundle.id, self.bundle.version
        self.config = self.bundle.json("config.json")

    @cached_property
    def identity(self) -> dict[str, str]:
        """SHA-256 of the encoder's weights and of its preprocessing: what prototypes belong to.

        An encoder in 8 bits goes by the weights it was made from: `imc_lite.export.quantize` writes it only where
        it names noise as well.
        """
        steps = json.dumps(self.config["encoder"], sort_keys=True).encode()
        made_from = self.bundle.manifest.get("encoder", {}).get("of")
        encoder = made_from or self.bundle.files["encoder.bin"]["sha256"]
        return {"encoder": encoder, "preprocessing": sha256(steps).hexdigest()}

    def prototypes_file(self) -> Path:
        """The bundle's own noise prototypes."""
        return self.bundle.file("prototypes.safetensors")

    def perceive(self, image: np.ndarray) -> Perception:
        """uint8 [H, W, 3] RGB -> tokens float32 [25, 1280], stats float32 [1664], from one encoder pass."""
        from imc_lite.models.default.preprocess import preprocess

        tokens, stats = self._encoder.run(["tokens", "stats"], {"pixels": preprocess(image)[None]})
        return Perception(tokens[0], stats[0])

    def calibrate(self, tokens: np.ndarray, transport: Transport) -> np.ndarray:
        """float32 [N, D] -> float32 [N, D], through one map of the model's prototypes."""
        return calibrated(self._calibrate, tokens, transport)

    def evidence(self, matcher: Matcher, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features [B, F] -> probabilities [B, K], novelty [B]; numpy is fast enough beside the encoder."""
        return matcher.evidence(values)

    def generate(
        self,
        prompt: str,
        tokens: np.ndarray | None,
        max_new_tokens: int = 32,
        on_text: Callable[[str], object] | None = None,
    ) -> Generation:
        """Greedy answer to `prompt`; `tokens` float32 [25, 1280], or None for text alone.

        `on_text` is called with the text so far after every token; what it raises ends the answer.

        Raises:
            ImcError: prompt and answer do not fit the context.
        """
        decoder = self._decoder
        embeds = self._prompt_embeds(prompt, tokens)
        decoder.begin(len(embeds) + max_new_tokens)
        ends = self.config["prompt"]["end"][:1]
        return greedy(
            decoder.extend(embeds)[0],
            lambda token: decoder.extend(self._embed([token]))[0],
            self.decode,
            ends,
            max_new_tokens,
            on_text,
        )

    def score(self, prompt: str, candidates: Sequence[str], tokens: np.ndarray | None = None) -> list[np.ndarray]:
        """Log-probability of every token of each candidate answer, the end token last: float32 [T_i] each.

        The prompt is read once; all candidates follow in one pass that keeps them from seeing each other.
        """
        return self.score_ids(self._prompt_embeds(prompt, tokens), [self.encode(c) for c in candidates])

    def score_ids(
        self, prefix: np.ndarray, candidates: Sequence[Sequence[int]], ended: bool = True
    ) -> list[np.ndarray]:
        """Like `score`, over embeddings float32 [P, hidden] and token ids; `ended` adds the end token."""
        decoder, end = self._decoder, self.config["prompt"]["end"]
        wanted = [[*c, *end] if ended else list(c) for c in candidates]
        # What all candidates begin with is read once; at least one token of each is left to tell them apart.
        shared = _common(wanted)
        whole = np.concatenate([prefix, self._embed(shared)]) if shared else prefix
        wanted = [w[len(shared) :] for w in wanted]
        room = self.config["decoder"]["positions"] - len(whole)
        longest = max((len(w) for w in wanted), default=0)
        decoder.begin(min(len(whole) + sum(map(len, wanted)), len(whole) + max(room, longest)))
        rows = log_softmax(decoder.extend(whole, last=len(shared) + 1))
        head, first = [rows[j, t] for j, t in enumerate(shared)], rows[-1]
        out: list[np.ndarray] = []
        for chunk in chunks(wanted, room):
            segments = [ids[:-1] for ids in chunk]
            flat = [i for segment in segments for i in segment]
            rows = log_softmax(decoder.branch(self._embed(flat), [len(s) for s in segments])) if flat else None
            at = 0
            for ids in chunk:
                tail = [] if rows is None else [rows[at + j, t] for j, t in enumerate(ids[1:])]
                at += len(ids) - 1
                out.append(np.array([*head, first[ids[0]], *tail], np.float32))
        return out

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text; control tokens written in it stay plain text."""
        return self._tokenizer.encode(text).ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of an answer's tokens."""
        return self._tokenizer.decode(ids).strip()

    def _prompt_embeds(self, prompt: str, tokens: np.ndarray | None) -> np.ndarray:
        parts = self.config["prompt"]
        words = self._embed([*self.encode(prompt), *parts["turn"]])
        visual = [] if tokens is None else [self._projector.run(["embeds"], {"tokens": tokens[None]})[0][0]]
        return np.concatenate([self._embed(parts["prefix"]), *visual, words])

    def _embed(self, ids: Sequence[int]) -> np.ndarray:
        """Rows of the tied embedding, float32 [T, hidden], from its 8-bit blocks."""
        codes, scales = self._table
        rows = (codes[ids].astype(np.float32) - 128) * scales[ids][..., None]
        return rows.reshape(len(ids), -1)

    @cached_property
    def _table(self) -> tuple[np.ndarray, np.ndarray]:
        shape = self.config["decoder"]
        path, offsets = self.bundle.file("decoder.bin"), self.config["head"]
        blocks = (shape["vocab"], shape["hidden"] // 32)
        codes = np.memmap(path, np.uint8, "r", offsets["head.q"], (*blocks, 32))
        return codes, np.memmap(path, np.float32, "r", offsets["head.s"], blocks)

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(self.bundle.file("tokenizer.json")))

    @cached_property
    def _encoder(self) -> onnxruntime.InferenceSession:
        return self.session("encoder")

    @cached_property
    def _calibrate(self) -> onnxruntime.InferenceSession:
        return self.session("calibrate")

    @cached_property
    def _projector(self) -> onnxruntime.InferenceSession:
        return self.session("projector")

    @cached_property
    def _decoder(self) -> _Decoder:
        return _Decoder(self.session("decoder"), self.config["decoder"])

    def session(self, graph: str) -> onnxruntime.InferenceSession:
        """An ONNX Runtime session over one graph of the bundle, its files checked."""
        return open_session(self.bundle, graph, self.threads, ["CPUExecutionProvider"])


def open_session(bundle: Bundle, graph: str, threads: int, providers: list[str]) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session over one graph of a bundle, its files checked.

    Raises:
        ImcError: a file is missing or was changed, or ONNX Runtime is not installed or cannot load the graph.
    """
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise ImcError("onnxruntime is not installed; install imc-lite[cpu] or imc-lite[gpu]") from error
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    path = bundle.file(f"{graph}.onnx")
    if f"{graph}.bin" in bundle.files:
        bundle.file(f"{graph}.bin")
    try:
        return ort.InferenceSession(str(path), options, providers)
    except Exception as error:  # ONNX Runtime raises bare pybind types
        raise ImcError(f"ONNX Runtime cannot load {graph}.onnx ({str(error).splitlines()[0]})") from error


def calibrated(session: onnxruntime.InferenceSession, tokens: np.ndarray, transport: Transport) -> np.ndarray:
    """float32 [N, D] -> float32 [N, D], through one map, by a session over calibrate.onnx."""
    feeds = {"x": tokens, "down": transport.down, "up": transport.up}
    return session.run(["y"], feeds | {"offset": transport.offset, "shift": transport.shift})[0]


class _Decoder:
    """The decoder with its cache: one buffer a layer, written in place through IO binding."""

    def __init__(self, session: onnxruntime.InferenceSession, shape: dict[str, Any]) -> None:
        self.session, self.shape = session, shape
        self.capacity = self.length = 0

    def begin(self, length: int) -> None:
        """Empty the cache and make room for `length` positions."""
        if length > self.shape["positions"]:
            raise ImcError(
                f"the question takes {length} tokens with its answer, the model holds {self.shape['positions']}; "
                "shorten the question"
            )
        self.length = 0
        if length <= self.capacity:
            return
        import onnxruntime as ort

        self.capacity = -(-length // CACHE_STEP) * CACHE_STEP
        self.binding = self.session.io_binding()
        size = (1, self.shape["kv_heads"], self.capacity, self.shape["head_dim"])
        self.buffers = []
        for i in range(self.shape["layers"]):
            for s in "kv":
                buffer = ort.OrtValue.ortvalue_from_numpy(np.zeros(size, np.float32))
                self.binding.bind_ortvalue_input(f"past_{i}_{s}", buffer)
                self.binding.bind_ortvalue_output(f"present_{i}_{s}", buffer)
                self.buffers.append(buffer)

    def extend(self, embeds: np.ndarray, last: int = 1) -> np.ndarray:
        """Append float32 [S, hidden]; logits float32 [last, vocab] after the last so many of them."""
        count, past = len(embeds), self.length
        bias = np.zeros((count, past + count), np.float32)
        logits = self._run(embeds, np.arange(past, past + count), bias, np.arange(count - last, count))
        self.length = past + count
        return logits

    def branch(self, embeds: np.ndarray, lengths: Sequence[int]) -> np.ndarray:
        """Logits [sum(lengths), vocab] of several continuations side by side; the cache keeps none of them."""
        past, total = self.length, len(embeds)
        bias = np.full((total, past + total), BLOCKED, np.float32)
        bias[:, :past] = 0
        at, positions = 0, []
        for length in lengths:
            bias[at : at + length, past + at : past + at + length] = 0
            positions.append(np.arange(past, past + length))
            at += length
        return self._run(embeds, np.concatenate(positions), bias, np.arange(total))

    def _run(self, embeds: np.ndarray, positions: np.ndarray, bias: np.ndarray, where: np.ndarray) -> np.ndarray:
        total = bias.shape[1]
        feeds = {
            "inputs_embeds": np.ascontiguousarray(embeds[None], np.float32),
            "position_ids": positions[None].astype(np.int64),
            "attention_bias": bias[None, None],
            "seqlens_k": np.array([total - 1], np.int32),
            "total_length": np.array([total], np.int32),
            "where": where.astype(np.int64),
        }
        for name, value in feeds.items():
            self.binding.bind_cpu_input(name, value)
        self.binding.bind_output("logits", "cpu")
        try:
            self.session.run_with_iobinding(self.binding)
        except Exception as error:  # ONNX Runtime raises bare pybind types
            raise ImcError(f"ONNX Runtime failed in the decoder ({str(error).splitlines()[0]})") from error
        outputs = self.binding.get_outputs()
        return outputs[self._logits_index].numpy()

    @cached_property
    def _logits_index(self) -> int:
        """Outputs come in the order they were bound: the cache first, the logits last."""
        return len(self.buffers)


def _common(items: list[list[int]]) -> list[int]:
    """The longest beginning that all share, short of any whole item."""
    length = min((len(item) for item in items), default=1) - 1
    while any(item[:length] != items[0][:length] for item in items):
        length -= 1
    return items[0][:length] if items else []


def chunks(items: list[list[int]], room: int) -> list[list[list[int]]]:
    """Split so that the tokens of a chunk fit beside the prefix."""
    parts: list[list[list[int]]] = [[]]
    used = 0
    for item in items:
        if parts[-1] and used + len(item) > room:
            parts.append([])
            used = 0
        parts[-1].append(item)
        used += len(item)
    return parts if parts[0] else []
