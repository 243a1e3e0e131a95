"""What models in PyTorch share: matching and calibration through the kernels, greedy answers, scores."""

from __future__ import annotations

import copy
import itertools
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from imc_lite.kernels.calibrate import MAX_RANK, LowRankMaps, calibrate
from imc_lite.kernels.match import MAX_PROTOTYPES, WhitenedPrototypes, match_stats
from imc_lite.models.base import BaseMLLM, Generation, TextOnly
from imc_lite.models.candidates import read_back, score_candidates
from imc_lite.models.deadline import NEVER, Deadline
from imc_lite.models.greedy import greedy
from imc_lite.models.remembered import remembered

if TYPE_CHECKING:
    from imc_lite.pdc.matcher import Matcher
    from imc_lite.pdc.remedies import LowRankMap

BESIDE = 8  # candidates scored in one pass; their logits are as wide as the vocabulary


class TorchMLLM(BaseMLLM, ABC):
    """The half of `imc_lite.models.base.MLLM` that does not depend on where a model keeps its parts.

    Attributes:
        model: of transformers, with a language-model head; called with `input_ids` once a prompt has been read.
        device: where it lies.
        ends: ids of the tokens that end an answer.
        no_picture: the tokens that a question without a picture is asked with.
    """

    runtime: tuple[str, ...] = ("torch", "transformers")
    model: Any
    device: torch.device
    ends: list[int]
    no_picture: np.ndarray | None = None
    _lock: threading.RLock  # a model may remember things from one call to the next, and hooks belong to one call
    _banks: tuple[Matcher, list[WhitenedPrototypes]] | None = None

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @abstractmethod
    def prefill(self, prompt: str, tokens: np.ndarray | None, room: int) -> tuple[torch.Tensor, Any, int]:
        """Logits [vocabulary] after the prompt, its cache, and the position of what follows.

        Raises:
            ImcError: the prompt and `room` more tokens do not fit the context.
        """

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Token ids of plain text; control tokens written in it stay plain text."""

    @abstractmethod
    def decode(self, ids: list[int]) -> str:
        """The text of an answer's tokens."""

    @torch.inference_mode()
    def calibrate(self, tokens: np.ndarray, low_rank_map: LowRankMap) -> np.ndarray:
        """float32 [N, D] -> float32 [N, D], through one map; one kernel launch on CUDA."""
        maps = LowRankMaps(*(self._tensor(part) for part in _split(low_rank_map)))
        weights = torch.ones(1, len(maps.down), device=self.device)
        return calibrate(self._tensor(tokens)[None], weights, maps)[0][0].cpu().numpy()

    @torch.inference_mode()
    def evidence(self, matcher: Matcher, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features [B, F] -> probabilities float32 [B, K], out-of-distribution scores float32 [B]; one
        kernel launch on CUDA for every 64 prototypes."""
        known = self._banks
        if known is None or known[0] is not matcher:  # another thread may put another matcher's there meanwhile
            self._banks = known = (matcher, _banks(matcher, self.device))
        found = [match_stats(self._tensor(values), bank) for bank in known[1]]
        chances = torch.cat([f.logits for f in found], 1).softmax(1)
        return chances.cpu().numpy(), found[0].novelty.cpu().numpy()

    @torch.inference_mode()
    def generate(
        self,
        prompt: str,
        tokens: np.ndarray | None,
        max_new_tokens: int = 32,
        on_text: Callable[[str], object] | None = None,
        deadline: Deadline = NEVER,
        top_logprobs: int = 0,
    ) -> Generation:
        """Greedy answer to `prompt`; `tokens` float32 [N, D] from `perceive`, or None for text alone."""
        with self._lock, _interruptible(self.model, deadline):
            logits, cache, place = self.prefill(prompt, tokens, max_new_tokens)
            places = itertools.count(place)

            def step(token: int) -> np.ndarray:
                return self.after(torch.tensor([[token]]), cache, next(places))[0, -1].float().cpu().numpy()

            first = logits.float().cpu().numpy()
            return greedy(first, step, self.decode, self.ends, max_new_tokens, on_text, deadline, top_logprobs)

    @torch.inference_mode()
    def score(
        self, prompt: str, candidates: Sequence[str], tokens: np.ndarray | None = None, deadline: Deadline = NEVER
    ) -> list[np.ndarray]:
        """Log-probability of every token of each candidate answer, then that it ends there: float32 [T_i + 1] each."""
        wanted = [self.encode(c) for c in candidates]
        cache: Any = None
        place = 0

        def read(shared: list[int], chunk: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
            nonlocal cache, place
            logits, cache, place = self.prefill(prompt, tokens, max(map(len, wanted)))
            rows = logits[None]
            if shared:
                rows = torch.cat([rows, self.after(torch.tensor([shared]), cache, place)[0]])
                place += len(shared)
            known = rows.float().log_softmax(-1).cpu().numpy()
            return known, branch(chunk) if any(chunk) else known[:0]

        def branch(chunk: list[list[int]]) -> np.ndarray:
            longest = max(map(len, chunk))
            # Padding stands to the right, where nothing before it looks.
            padded = torch.tensor([[*ids, *[0] * (longest - len(ids))] for ids in chunk])
            branches = copy.deepcopy(cache)
            branches.batch_repeat_interleave(len(chunk))
            rows = self.after(padded, branches, place).float().log_softmax(-1)
            return torch.cat([row[: len(ids)] for row, ids in zip(rows, chunk, strict=True)]).cpu().numpy()

        def split(shared: int, rest: list[list[int]]) -> list[list[list[int]]]:
            return [rest[at : at + BESIDE] for at in range(0, len(rest), BESIDE)]

        with self._lock, _interruptible(self.model, deadline):
            return score_candidates(wanted, self.ends, read, branch, split, deadline)

    @remembered
    @torch.inference_mode()
    def text_only(self, prompt: str, answer: str, deadline: Deadline = NEVER) -> TextOnly:
        """An answer as it would be without a picture, from a pass over the prompt and one over the answer."""
        ids = self.encode(answer)
        with self._lock, _interruptible(self.model, deadline):
            logits, cache, place = self.prefill(prompt, self.no_picture, len(ids))
            rows = logits[None]
            if ids:
                rows = torch.cat([rows, self.after(torch.tensor([ids]), cache, place)[0]])
        return read_back(rows.float().log_softmax(-1).cpu().numpy(), ids, self.ends)

    def after(self, ids: torch.Tensor, cache: Any, place: int) -> torch.Tensor:
        """Logits [B, T, vocabulary] of ids [B, T] that follow the cache, from position `place`."""
        places = torch.arange(place, place + ids.shape[1], device=self.device).expand(ids.shape)
        return self.model(
            input_ids=ids.to(self.device), position_ids=places, past_key_values=cache, use_cache=True
        ).logits

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(self.device)


@contextmanager
def _interruptible(model: torch.nn.Module, deadline: Deadline) -> Iterator[None]:
    """Look at the deadline before every layer too: one pass over a long prompt takes many seconds on a CPU."""
    hooks = []
    if deadline is not NEVER:
        layers = [layer for part in model.modules() if isinstance(part, torch.nn.ModuleList) for layer in part]
        hooks = [layer.register_forward_pre_hook(lambda *_: deadline.check()) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _split(low_rank_map: LowRankMap) -> tuple[np.ndarray, ...]:
    """A map as several whose corrections add up to its own, since the kernel holds a rank of so much: down float32
    [K, D, r], up [K, r, D], offset [K, r] and shift [K, D], which the first has alone."""
    count = -(-low_rank_map.down.shape[1] // MAX_RANK)
    rank = -(-low_rank_map.down.shape[1] // count)
    missing = count * rank - low_rank_map.down.shape[1]
    down = np.pad(low_rank_map.down, ((0, 0), (0, missing))).reshape(-1, count, rank).swapaxes(0, 1)
    up = np.pad(low_rank_map.up, ((0, missing), (0, 0))).reshape(count, rank, -1)
    offset = np.pad(low_rank_map.offset, (0, missing)).reshape(count, rank)
    shift = np.zeros((count, low_rank_map.shift.shape[0]), low_rank_map.shift.dtype)
    shift[0] = low_rank_map.shift
    return np.ascontiguousarray(down), up, offset, shift


def _banks(matcher: Matcher, device: torch.device) -> list[WhitenedPrototypes]:
    """The kernel holds so many prototypes at once; the evidence of more is put together."""
    names = ("mean", "whiten", "points", "bias", "precision", "reconstruct")
    mean, whiten, points, bias, precision, reconstruct = (
        torch.from_numpy(np.asarray(getattr(matcher, n))) for n in names
    )
    parts = zip(points.split(MAX_PROTOTYPES), bias.split(MAX_PROTOTYPES), strict=True)
    return [WhitenedPrototypes.build(mean, whiten, p, b, precision, reconstruct, device) for p, b in parts]
