"""`OrtMLLM`: a bundle run by ONNX Runtime, without torch."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from copy import copy
from functools import cached_property
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from imc_lite.bundle.store import Bundle
from imc_lite.models.base import BaseMLLM, Generation, Perception, TextOnly
from imc_lite.models.candidates import read_back, score_candidates, split_by_room
from imc_lite.models.deadline import NEVER, Deadline
from imc_lite.models.default.decoder import Decoder
from imc_lite.models.default.spec import NO_PICTURE
from imc_lite.models.greedy import greedy, log_softmax
from imc_lite.models.onnx_sessions import CPU, Sessions, calibrated, open_session
from imc_lite.models.remembered import remembered

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

    from imc_lite.pdc.remedies import LowRankMap

# Tokens of a prompt without a picture whose part of the cache is kept; so far the prompts of question repair are fixed.
BEGINNING = 7
BESIDE = 768  # tokens of one pass over questions side by side; its attention bias grows with their square


class OrtMLLM(BaseMLLM):
    """The default model, or any bundle, on ONNX Runtime. Implements `imc_lite.models.base.MLLM`.

    Sessions are made when first needed: naming noise never loads the language model.
    """

    statistics: str = "quadrants"
    runtime: tuple[str, ...] = ("onnxruntime",)

    def __init__(self, bundle: Path | Bundle, threads: int = 1) -> None:
        """Open a bundle.

        Args:
            bundle: its folder.
            threads: intra-op threads; more than the physical cores slows it down.

        Raises:
            ImcError: not a bundle, a changed file, or ONNX Runtime is not installed.
        """
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle(bundle)
        self.sessions = Sessions(self.bundle, threads, "cpu")
        self.id, self.version = self.bundle.id, self.bundle.version
        self.config = self.bundle.json("config.json")
        self.rewrites = bool(self.config.get("rewrites", False))
        self._turn = threading.RLock()  # the decoder's cache holds one sequence

    def beside(self) -> OrtMLLM:
        """The same model for another thread, which need not take turns with this one: all but the decoder's cache is
        shared, the weights above all."""
        other = copy(self)
        other.__dict__.pop("decoder", None)
        other._turn = threading.RLock()
        return other

    def replicas(self) -> list[OrtMLLM]:
        """As many models as this one has threads, one thread each, that answer side by side. Several threads within an
        operator wait for one another; these do not, and what they answer is what one thread answers."""
        if self.sessions.threads == 1:
            return [self]
        first = self.beside()
        first.sessions = self._of_one_thread
        return [first, *(first.beside() for _ in range(self.sessions.threads - 1))]

    @cached_property
    def _of_one_thread(self) -> Sessions:
        return Sessions(self.bundle, 1, "cpu")

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

    def confidence_file(self) -> Path | None:
        """The bundle's own fitted confidence, if any."""
        name = "confidence.safetensors"
        return self.bundle.file(name) if name in self.bundle.files else None

    def perceive(self, image: np.ndarray) -> Perception:
        """uint8 [H, W, 3] RGB -> tokens float32 [25, 1280], stats float32 [1664], from one encoder pass."""
        from imc_lite.models.default.preprocess import preprocess

        tokens, stats = self.sessions["encoder"].run(["tokens", "stats"], {"pixels": preprocess(image)[None]})
        return Perception(tokens[0], stats[0])

    def noise_statistics(self, image: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3] RGB -> float32 [1664], what `perceive` gives as `stats`, from the blocks that they are read
        from alone: what names noise needs no more. Of a bundle with an encoder of its own they come from a whole
        pass."""
        from imc_lite.models.default.preprocess import preprocess

        packaged = self._has_packaged_encoder
        session = self.sessions.made("shallow", self._open_shallow) if packaged else self.sessions["encoder"]
        found: np.ndarray = session.run(["stats"], {"pixels": preprocess(image)[None]})[0][0]
        return found

    @cached_property
    def _has_packaged_encoder(self) -> bool:
        """Whether the encoder's graph is the package's, whatever its weights, so that the shallow one is a part of
        it."""
        graph = (resources.files("imc_lite.assets") / "encoder.onnx").read_bytes()
        return self.bundle.files["encoder.onnx"]["sha256"] == sha256(graph).hexdigest()

    def _open_shallow(self) -> InferenceSession:
        weights, graph = self.bundle.file("encoder.bin"), resources.files("imc_lite.assets") / "shallow.onnx"
        return open_session("shallow.onnx", graph.read_bytes(), self.sessions.threads, [CPU], folder=weights.parent)

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
        of_many: bool = False,
    ) -> Generation:
        """Greedy answer to `prompt`; `tokens` float32 [25, 1280], or None for text alone.

        With `of_many` the prompt's beginning, up to the end of the picture, is always read by itself, whether it is
        kept already or not: processors may round otherwise where more tokens are read together, and an answer must not
        depend on what was asked before.
        """
        with self._turn:
            decoder = self.decoder
            embeds = self.prompt_embeds(prompt, tokens)
            decoder.begin(len(embeds) + max_new_tokens, tokens is not None, deadline)
            shared = len(self.config["prompt"]["prefix"]) + len(tokens) if tokens is not None and of_many else 0
            return greedy(
                decoder.extend(embeds, keep=BEGINNING if tokens is None else shared)[0],
                lambda token: decoder.extend(self.embed([token]))[0],
                self.decode,
                self.config["prompt"]["end"][:1],
                max_new_tokens,
                on_text,
                deadline,
                top_logprobs,
            )

    def score(
        self,
        prompt: str,
        candidates: Sequence[str],
        tokens: np.ndarray | None = None,
        deadline: Deadline = NEVER,
        fixed: bool = False,
    ) -> list[np.ndarray]:
        """Log-probability of every token of each candidate answer, the end token last: float32 [T_i + 1] each.

        A `fixed` prompt without a picture, one that is asked again and again, is read once.
        """
        wanted = [self.encode(c) for c in candidates]
        positions = self.config["decoder"]["positions"]
        with self._turn:
            decoder = self.decoder
            prefix = self.prompt_embeds(prompt, tokens)

            def read(shared: list[int], chunk: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
                whole = np.concatenate([prefix, self.embed(shared)])
                rest = [len(w) - len(shared) + 1 for w in wanted]
                room = max(min(sum(rest), positions - len(whole)), *rest)
                decoder.begin(len(whole) + room, tokens is not None, deadline)
                # Two of its tokens are read again, since a single one is read otherwise.
                keep = 0 if tokens is not None else len(prefix) - 2 if fixed else BEGINNING
                behind = self.embed([i for ids in chunk for i in ids]), [*map(len, chunk)]
                rows, after = decoder.extend_and_branch(whole, len(shared) + 1, keep, *behind)
                return log_softmax(rows), log_softmax(after)

            def branch(chunk: list[list[int]]) -> np.ndarray:
                return log_softmax(decoder.branch(self.embed([i for ids in chunk for i in ids]), [*map(len, chunk)]))

            def split(shared: int, rest: list[list[int]]) -> list[list[list[int]]]:
                return split_by_room(rest, positions - len(prefix) - shared)

            return score_candidates(wanted, self.config["prompt"]["end"][:1], read, branch, split, deadline)

    @remembered
    def text_only(self, prompt: str, answer: str, deadline: Deadline = NEVER) -> TextOnly:
        """An answer as it would be without a picture, from one pass. What has learnt pictures stays on: the same
        language model is asked, and only its picture is missing."""
        ids = self.encode(answer)
        with self._turn:
            embeds = np.concatenate([self.prompt_embeds(prompt, NO_PICTURE), self.embed(ids)])
            self.decoder.begin(len(embeds) + 1, True, deadline)
            rows = log_softmax(self.decoder.extend(embeds, last=len(ids) + 1))
        return read_back(rows, ids, self.config["prompt"]["end"][:1])

    def agrees(self, pairs: Sequence[tuple[str, str]], tokens: np.ndarray | None) -> list[bool]:
        """Whether every token of each expected answer, the end token included, is the model's first choice.

        That is what greedy decoding would have written, without decoding: all questions in one pass, side by side.
        """
        parts = self.config["prompt"]
        rows = [([*self.encode(q), *parts["turn"]], [*self.encode(a), *parts["end"]]) for q, a in pairs]
        hits: list[bool] = []
        with self._turn:
            prefix = np.concatenate([self.embed(parts["prefix"]), *self._visual(tokens)])
            while len(hits) < len(rows):
                chunk = rows[len(hits) : len(hits) + 1]
                for row in rows[len(hits) + 1 :]:
                    if sum(len(asked) + len(answer) for asked, answer in (*chunk, row)) > BESIDE:
                        break
                    chunk.append(row)
                hits += self._first_choices(prefix, chunk, tokens is not None)
        return hits

    def _first_choices(self, prefix: np.ndarray, rows: list[tuple[list[int], list[int]]], pictured: bool) -> list[bool]:
        segments: list[list[int]] = []
        where: list[int] = []
        wanted: list[int] = []
        spans: list[slice] = []
        at = 0
        for asked, answer in rows:
            spans.append(slice(len(where), len(where) + len(answer)))
            where += range(at + len(asked) - 1, at + len(asked) - 1 + len(answer))
            wanted += answer
            segments.append([*asked, *answer[:-1]])
            at += len(segments[-1])
        self.decoder.begin(len(prefix) + at, pictured)
        self.decoder.begin_with(prefix)
        embeds = self.embed([i for segment in segments for i in segment])
        first = self.decoder.branch(embeds, [*map(len, segments)], where).argmax(1) == np.array(wanted)
        return [bool(first[span].all()) for span in spans]

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text; control tokens written in it stay plain text."""
        return self._tokenizer.encode(text).ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of an answer's tokens."""
        return self._tokenizer.decode(ids).strip()

    def prompt_embeds(self, prompt: str, tokens: np.ndarray | None) -> np.ndarray:
        """The whole prompt up to where the answer begins, float32 [T, hidden]."""
        parts = self.config["prompt"]
        words = self.embed([*self.encode(prompt), *parts["turn"]])
        return np.concatenate([self.embed(parts["prefix"]), *self._visual(tokens), words])

    def _visual(self, tokens: np.ndarray | None) -> list[np.ndarray]:
        if tokens is None or not len(tokens):
            return []
        return [self.sessions["projector"].run(["embeds"], {"tokens": tokens[None]})[0][0]]

    def embed(self, ids: Sequence[int]) -> np.ndarray:
        """Rows of the tied embedding, float32 [T, hidden], from its 8-bit blocks."""
        codes, scales = self._table
        rows = (codes[ids].astype(np.float32) - 128) * scales[ids][..., None]
        return rows.reshape(len(ids), codes.shape[1] * codes.shape[2])  # of no ids too

    @cached_property
    def decoder(self) -> Decoder:
        """The language model with its cache; one thread at a time may use it."""
        return Decoder(self.sessions["decoder"], self.config["decoder"])

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
