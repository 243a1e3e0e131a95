"""`ExportedMLLM`: a Hugging Face model that `imc-lite export` wrote, run by ONNX Runtime without torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from imc_lite.bundle.store import Bundle
from imc_lite.errors import ImcError
from imc_lite.models.base import BaseMLLM, Generation, Perception, TextOnly, check_room
from imc_lite.models.candidates import read_back, score_candidates, split_by_room
from imc_lite.models.deadline import NEVER, Deadline, DeadlineError
from imc_lite.models.exported.picture_steps import prepare
from imc_lite.models.greedy import greedy, log_softmax
from imc_lite.models.onnx_sessions import BLOCKED, Sessions, calibrated, interruptible
from imc_lite.models.remembered import remembered
from imc_lite.models.special_tokens import defuse

if TYPE_CHECKING:
    from pathlib import Path

    import onnxruntime

    from imc_lite.pdc.remedies import LowRankMap


class ExportedMLLM(BaseMLLM):
    """A bundle of `imc_lite.export.hf` on ONNX Runtime. Implements `imc_lite.models.base.MLLM`.

    It answers, scores and perceives as the `HfMLLM` it was made from, and takes the same prototypes.
    """

    runtime: tuple[str, ...] = ("onnxruntime",)

    def __init__(self, bundle: Bundle, threads: int = 1, device: str = "auto") -> None:
        """Open a bundle.

        Args:
            bundle: its manifest's kind is "huggingface".
            threads: intra-op threads on the CPU.
            device: "cpu", "cuda", or "auto": CUDA where onnxruntime has it.

        Raises:
            ImcError: a changed file, ONNX Runtime is not installed, or it has no CUDA.
        """
        self.bundle = bundle
        self.sessions = Sessions(bundle, threads, device)
        self.id, self.version = bundle.id, bundle.version
        self.identity: dict[str, str] = bundle.manifest["identity"]
        self.config = bundle.json("config.json")
        self.rewrites = bool(self.config.get("rewrites", False))

    def beside(self) -> ExportedMLLM:
        """The same model for another thread: itself, as no call changes it."""
        return self

    @property
    def on_gpu(self) -> bool:
        """Whether ONNX Runtime has CUDA and may use it."""
        return self.sessions.on_gpu

    def replicas(self) -> list[ExportedMLLM]:
        """As many models as this one has threads on the CPU, one thread each, that answer side by side: one model, as
        no call changes it. On CUDA there is one."""
        count = self.sessions.threads
        if count == 1 or self.on_gpu:
            return [self]
        alone = copy(self)
        alone.sessions = Sessions(self.bundle, 1, "cpu")
        return [alone] * count

    def prototypes_file(self) -> Path | None:
        """The noise prototypes it was exported with, if any."""
        name = "prototypes.safetensors"
        return self.bundle.file(name) if name in self.bundle.files else None

    def confidence_file(self) -> Path | None:
        """The bundle's own fitted confidence, if any."""
        name = "confidence.safetensors"
        return self.bundle.file(name) if name in self.bundle.files else None

    def perceive(self, image: np.ndarray) -> Perception:
        """uint8 [H, W, 3] RGB -> tokens float32 [N, D], stats float32 [8 D'], from one tower pass."""
        pixels = prepare(image, self.config["picture"])
        return Perception(*self.sessions["encoder"].run(["tokens", "stats"], {"pixels": pixels}))

    def calibrate(self, tokens: np.ndarray, low_rank_map: LowRankMap) -> np.ndarray:
        """float32 [N, D] -> float32 [N, D], through one map of the model's prototypes."""
        return calibrated(self.sessions["calibrate"], tokens, low_rank_map)

    def generate(
        self,
        prompt: str,
        tokens: np.ndarray | None,
        max_new_tokens: int = 32,
        on_text: Callable[[str], object] | None = None,
        deadline: Deadline = NEVER,
        top_logprobs: int = 0,
    ) -> Generation:
        """Greedy answer to `prompt`; `tokens` float32 [N, D] from `perceive`, or None for text alone.

        Raises:
            ImcError: prompt and answer do not fit the context, or the bundle holds no language model.
        """
        memory, logits = self.read(self.prompt_ids(prompt, tokens is not None), tokens, max_new_tokens, deadline)
        return greedy(
            logits,
            lambda token: memory.extend(self.embed([token]))[0],
            self.decode,
            self.config["ends"],
            max_new_tokens,
            on_text,
            deadline,
            top_logprobs,
        )

    def score(
        self, prompt: str, candidates: Sequence[str], tokens: np.ndarray | None = None, deadline: Deadline = NEVER
    ) -> list[np.ndarray]:
        """Log-probability of every token of each candidate answer, then that it ends there: float32 [T_i + 1] each.

        Raises:
            ImcError: prompt and candidates do not fit the context, or the bundle holds no language model.
        """
        wanted = [self.encode(c) for c in candidates]
        longest = max(map(len, wanted), default=0)
        asked = self.prompt_ids(prompt, tokens is not None)
        memory: _Memory

        def read(shared: list[int], chunk: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
            nonlocal memory
            memory, logits = self.read(asked, tokens, longest, deadline)
            more = [memory.extend(self.embed(shared), last=len(shared))] if shared else []
            rows = log_softmax(np.concatenate([logits[None], *more]))
            return rows, branch(chunk) if any(chunk) else rows[:0]

        def branch(chunk: list[list[int]]) -> np.ndarray:
            return log_softmax(memory.branch(self.embed([i for ids in chunk for i in ids]), [*map(len, chunk)]))

        def split(shared: int, rest: list[list[int]]) -> list[list[list[int]]]:
            return split_by_room(rest, self.config["decoder"]["positions"] - len(asked) - shared)

        return score_candidates(wanted, self.config["ends"], read, branch, split, deadline)

    @remembered
    def text_only(self, prompt: str, answer: str, deadline: Deadline = NEVER) -> TextOnly:
        """An answer as it would be without a picture, from a pass over the prompt and one over the answer.

        Raises:
            ImcError: they do not fit the context, or the bundle holds no language model.
        """
        ids = self.encode(answer)
        memory, logits = self.read(self.prompt_ids(prompt, False), None, len(ids), deadline)
        more = [memory.extend(self.embed(ids), last=len(ids))] if ids else []
        return read_back(log_softmax(np.concatenate([logits[None], *more])), ids, self.config["ends"])

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text; control tokens written in it stay plain text."""
        return self._tokenizer.encode(defuse(text, self.config["control"]), add_special_tokens=False).ids

    def prompt_ids(self, question: str, with_image: bool) -> list[int]:
        """Token ids of the whole prompt, a picture's places filled with its token."""
        parts = self.config["prompts"]["picture" if with_image else "text"]
        text = parts["before"] + defuse(question, self.config["control"]) + parts["after"]
        return self._tokenizer.encode(text, add_special_tokens=parts["special"]).ids

    def read(
        self, ids: list[int], tokens: np.ndarray | None, room: int, deadline: Deadline = NEVER
    ) -> tuple[_Memory, np.ndarray]:
        """Read a prompt, leaving `room` positions for what follows: its cache, and logits [vocabulary] after it.

        Raises:
            ImcError: they do not fit the context.
            DeadlineError: the deadline passed meanwhile.
        """
        check_room(len(ids) + room, self.config["decoder"]["positions"])
        memory = _Memory(self.sessions["decoder"], self.config, deadline)
        embeds, shown = self.embed(ids), np.zeros(len(ids), bool)
        deep = None
        if tokens is not None:
            shown = np.array(ids) == self.config["image"]["token"]
            visual = self.sessions["projector"].run(["embeds"], {"tokens": np.asarray(tokens, np.float32)})[0]
            embeds[shown] = visual[0]
            deep = np.zeros((len(visual) - 1, *embeds.shape), np.float32)
            deep[:, shown] = visual[1:]
        return memory, memory.extend(embeds, shown, deep)[0]

    def embed(self, ids: Sequence[int]) -> np.ndarray:
        """int [T] -> float32 [T, hidden]."""
        return self.sessions["embed"].run(["embeds"], {"ids": np.asarray(ids, np.int64)})[0]

    def decode(self, ids: list[int]) -> str:
        """The text of an answer's tokens."""
        return self._tokenizer.decode(ids, skip_special_tokens=True).strip()

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(self.bundle.file("tokenizer.json")))


class _Memory:
    """The language model with the cache of what it has read."""

    def __init__(
        self, session: onnxruntime.InferenceSession, config: dict[str, Any], deadline: Deadline = NEVER
    ) -> None:
        import onnxruntime as ort

        self.deadline = deadline  # ends any pass
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
            with interruptible(self.deadline) as options:
                return self.session.run_with_ort_values(["logits", *kept], given, options)
        except DeadlineError:
            raise
        except Exception as error:  # ONNX Runtime raises bare pybind types
            raise ImcError(f"ONNX Runtime failed in the decoder ({str(error).splitlines()[0]})") from error
