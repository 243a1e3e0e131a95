"""`ExportedMLLM`: a Hugging Face model that `imc-lite export` wrote, run by ONNX Runtime without torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from imc_lite.bundle.store import Bundle
from imc_lite.errors import ImcError
from imc_lite.models.base import Generation, Perception
from imc_lite.models.default.onnx import BLOCKED, calibrated, chunks, open_session
from imc_lite.models.exported.picture_steps import prepare
from imc_lite.models.greedy import greedy, log_softmax
from imc_lite.models.special_tokens import defuse

if TYPE_CHECKING:
    from pathlib import Path

    import onnxruntime

    from imc_lite.pdc.matcher import Matcher
    from imc_lite.pdc.prototypes import Transport

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


class ExportedMLLM:
    """A bundle of `imc_lite.export.hf` on ONNX Runtime. Implements `imc_lite.models.base.MLLM`.

    It answers, scores and perceives as the `HfMLLM` it was made from, and takes the same prototypes.
    """

    statistics = "tokens"
    runtime = ("onnxruntime",)

    def __init__(self, bundle: Bundle, threads: int = 1, device: str = "auto") -> None:
        """Open a bundle.

        Args:
            bundle: its manifest's kind is "huggingface".
            threads: intra-op threads on the CPU.
            device: "cpu", "cuda", or "auto": CUDA where onnxruntime has it.

        Raises:
            ImcError: a changed file, ONNX Runtime is not installed, or it has no CUDA.
        """
        self.bundle, self.threads, self.device = bundle, threads, device
        self.id, self.version = bundle.id, bundle.version
        self.identity: dict[str, str] = bundle.manifest["identity"]
        self.config = bundle.json("config.json")
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}

    def prototypes_file(self) -> Path | None:
        """The noise prototypes it was exported with, if any."""
        name = "prototypes.safetensors"
        return self.bundle.file(name) if name in self.bundle.files else None

    def perceive(self, image: np.ndarray) -> Perception:
        """uint8 [H, W, 3] RGB -> tokens float32 [N, D], stats float32 [8 D'], from one tower pass."""
        pixels = prepare(image, self.config["picture"])
        return Perception(*self.session("encoder").run(["tokens", "stats"], {"pixels": pixels}))

    def calibrate(self, tokens: np.ndarray, transport: Transport) -> np.ndarray:
        """float32 [N, D] -> float32 [N, D], through one map of the model's prototypes."""
        return calibrated(self.session("calibrate"), tokens, transport)

    def evidence(self, matcher: Matcher, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features [B, F] -> probabilities [B, K], novelty [B]."""
        return matcher.evidence(values)

    def generate(
        self,
        prompt: str,
        tokens: np.ndarray | None,
        max_new_tokens: int = 32,
        on_text: Callable[[str], object] | None = None,
    ) -> Generation:
        """Greedy answer to `prompt`; `tokens` float32 [N, D] from `perceive`, or None for text alone.

        `on_text` is called with the text so far after every token; what it raises ends the answer.

        Raises:
            ImcError: prompt and answer do not fit the context, or the bundle holds no language model.
        """
        memory, logits = self.read(self.prompt_ids(prompt, tokens is not None), tokens, max_new_tokens)
        ends = self.config["ends"]
        return greedy(
            logits, lambda token: memory.extend(self.embed([token]))[0], self.decode, ends, max_new_tokens, on_text
        )

    def score(self, prompt: str, candidates: Sequence[str], tokens: np.ndarray | None = None) -> list[np.ndarray]:
        """Log-probability of every token of each candidate answer, then that it ends there: float32 [T_i] each.

        The prompt is read once; all candidates follow in one pass that keeps them from seeing each other.

        Raises:
            ImcError: prompt and candidates do not fit the context, or the bundle holds no language model.
        """
        wanted = [self.encode(c) for c in candidates]
        longest = max(map(len, wanted), default=0)
        memory, logits = self.read(self.prompt_ids(prompt, tokens is not None), tokens, longest)
        first, ends = log_softmax(logits), self.config["ends"]
        out: list[np.ndarray] = []
        for chunk in chunks(wanted, max(longest, self.config["decoder"]["positions"] - memory.length)):
            flat = [i for ids in chunk for i in ids]
            rows = log_softmax(memory.branch(self.embed(flat), [len(ids) for ids in chunk])) if flat else None
            at = 0
            for ids in chunk:
                mine = [first] if rows is None else [first, *rows[at : at + len(ids)]]
                at += len(ids)
                found = [row[token] for row, token in zip(mine, ids, strict=False)]
                out.append(np.array([*found, np.logaddexp.reduce(mine[-1][ends])], np.float32))
        return out

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text; control tokens written in it stay plain text."""
        return self._tokenizer.encode(defuse(text, self.config["control"]), add_special_tokens=False).ids

    def prompt_ids(self, question: str, with_image: bool) -> list[int]:
        """Token ids of the whole prompt, a picture's places filled with its token."""
        parts = self.config["prompts"]["picture" if with_image else "text"]
        text = parts["before"] + defuse(question, self.config["control"]) + parts["after"]
        return self._tokenizer.encode(text, add_special_tokens=parts["special"]).ids

    def read(self, ids: list[int], tokens: np.ndarray | None, room: int) -> tuple[_Memory, np.ndarray]:
        """Read a prompt, leaving `room` positions for what follows: its cache, and logits [vocabulary] after it."""
        limit = self.config["decoder"]["positions"]
        if len(ids) + room > limit:
            raise ImcError(
                f"the question takes {len(ids) + room} tokens with its answer, the model holds {limit}; "
                "shorten the question"
            )
        memory = _Memory(self.session("decoder"), self.config)
        embeds, shown = self.embed(ids), np.zeros(len(ids), bool)
        deep = None
        if tokens is not None:
            shown = np.array(ids) == self.config["image"]["token"]
            visual = self.session("projector").run(["embeds"], {"tokens": np.asarray(tokens, np.float32)})[0]
            embeds[shown] = visual[0]
            deep = np.zeros((len(visual) - 1, *embeds.shape), np.float32)
            deep[:, shown] = visual[1:]
        return memory, memory.extend(embeds, shown, deep)[0]

    def embed(self, ids: Sequence[int]) -> np.ndarray:
        """int [T] -> float32 [T, hidden]."""
        return self.session("embed").run(["embeds"], {"ids": np.asarray(ids, np.int64)})[0]

    def decode(self, ids: list[int]) -> str:
        """The text of an answer's tokens."""
        return self._tokenizer.decode(ids, skip_special_tokens=True).strip()

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(self.bundle.file("tokenizer.json")))

    def session(self, graph: str) -> onnxruntime.InferenceSession:
        if graph not in self._sessions:
            session = open_session(self.bundle, graph, self.threads, self._providers)
            # A provider that is listed may still fail to start; the session says what it got.
            if self.device == "cuda" and CUDA not in session.get_providers():
                raise ImcError("onnxruntime finds no CUDA device here; choose --device cpu")
            self._sessions[graph] = session
        return self._sessions[graph]

    @cached_property
    def _providers(self) -> list[str]:
        import onnxruntime as ort

        if self.device == "cpu" or CUDA not in ort.get_available_providers():
            if self.device == "cuda":
                raise ImcError("this onnxruntime has no CUDA; install imc-lite[gpu], or choose --device cpu")
            return [CPU]
        return [CUDA, CPU]


class _Memory:
    """The language model with the cache of what it has read."""

    def __init__(self, session: onnxruntime.InferenceSession, config: dict[str, Any]) -> None:
        import onnxruntime as ort

        self.session, self.shape, self.image = session, config["decoder"], config["image"]
        self.length = 0  # positions in the cache
        self.place = 0  # rotary position of what comes next; Qwen counts a picture's rows and columns, not its tokens
        self.shown = np.zeros(0, bool)  # which of them are a picture's
        empty = np.zeros((1, self.shape["kv_heads"], 0, self.shape["head_dim"]), np.float32)
        names = [f"{i}_{s}" for i in range(self.shape["layers"]) for s in "kv"]
        self.past = {f"past_{name}": ort.OrtValue.ortvalue_from_numpy(empty) for name in names}
        self.present = [f"present_{name}" for name in names]

    def extend(
        self, embeds: np.ndarray, shown: np.ndarray | None = None, deep: np.ndarray | None = None, last: int = 1
    ) -> np.ndarray:
        """Append float32 [S, hidden]; logits float32 [last, vocabulary] after the last so many of them.

        `shown` bool [S] says which are a picture's, `deep` float32 [layers, S, hidden] what is added further up.
        """
        count = len(embeds)
        shown = np.zeros(count, bool) if shown is None else shown
        index = np.arange(self.length, self.length + count)
        everything, seen = np.arange(self.length + count), np.concatenate([self.shown, shown])
        allowed = everything <= index[:, None]
        if self.shape["bidirectional"]:  # a picture's tokens see each other
            allowed |= shown[:, None] & seen
        distance = index[:, None] - everything
        places = self._places(shown)
        found = self._run(embeds, places, allowed, distance, np.arange(count - last, count), deep, self.present)
        self.past = dict(zip(self.past, found[1:], strict=True))
        self.length, self.shown, self.place = self.length + count, seen, int(places.max()) + 1
        return found[0].numpy()

    def branch(self, embeds: np.ndarray, lengths: Sequence[int]) -> np.ndarray:
        """Logits [sum(lengths), vocabulary] of several continuations side by side; the cache keeps none of them."""
        count = len(embeds)
        owner = np.repeat(np.arange(len(lengths)), lengths)
        step = np.concatenate([np.arange(n) for n in lengths])
        mine = (owner[:, None] == owner) & (step <= step[:, None])
        allowed = np.concatenate([np.ones((count, self.length), bool), mine], 1)
        index = self.length + step
        distance = index[:, None] - np.concatenate([np.arange(self.length), index])
        places = np.broadcast_to(self.place + step, (self.shape["axes"], count))
        return self._run(embeds, places, allowed, distance, np.arange(count), None, [])[0].numpy()

    def _places(self, shown: np.ndarray) -> np.ndarray:
        """Rotary positions int64 [axes, S] of what is appended."""
        grid = self.image["places"]
        if grid is None or not shown.any():
            return np.broadcast_to(self.place + np.arange(len(shown)), (self.shape["axes"], len(shown)))
        begin, end = int(shown.argmax()), len(shown) - int(shown[::-1].argmax())
        before = np.arange(begin)
        after = begin + self.image["span"] + np.arange(len(shown) - end)
        rows = [np.concatenate([before, begin + np.array(axis), after]) for axis in grid]
        return self.place + np.array(rows)

    def _run(
        self,
        embeds: np.ndarray,
        places: np.ndarray,
        allowed: np.ndarray,
        distance: np.ndarray,
        where: np.ndarray,
        deep: np.ndarray | None,
        kept: list[str],
    ) -> list[onnxruntime.OrtValue]:
        import onnxruntime as ort

        axes = self.shape["axes"]
        feeds = {
            "embeds": np.ascontiguousarray(embeds[None], np.float32),
            "positions": np.ascontiguousarray(places if axes == 1 else places[:, None], np.int64),
            "where": where.astype(np.int64),
        }
        for name in self.shape["masks"]:
            near = allowed & (distance < self.shape["window"]) if name == "sliding_attention" else allowed
            feeds[name] = np.where(near, np.float32(0), BLOCKED)[None, None]
        if self.shape["deepstack"]:
            empty = np.zeros((self.shape["deepstack"], *embeds.shape), np.float32)
            feeds["deepstack"] = empty if deep is None else deep
        given = {name: ort.OrtValue.ortvalue_from_numpy(value) for name, value in feeds.items()} | self.past
        try:
            return self.session.run_with_ort_values(["logits", *kept], given)
        except Exception as error:  # ONNX Runtime raises bare pybind types
            raise ImcError(f"ONNX Runtime failed in the decoder ({str(error).splitlines()[0]})") from error
