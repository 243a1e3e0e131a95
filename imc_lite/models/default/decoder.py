"""The default model's decoder on ONNX Runtime, with its cache: one buffer a layer, written in place."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from imc_lite.errors import ImcError
from imc_lite.models.base import check_room
from imc_lite.models.deadline import NEVER, Deadline, DeadlineError
from imc_lite.models.onnx_sessions import BLOCKED, interruptible

if TYPE_CHECKING:
    import onnxruntime

CACHE_STEP = 256  # positions that a cache grows by
MOST_KEPT = {False: 8, True: 2}  # beginnings of sequences, without a picture and with one; such take 1.3 MB each


class Decoder:
    """Reads embeddings, remembers them, and gives logits. One sequence at a time: callers take turns."""

    def __init__(self, session: onnxruntime.InferenceSession, shape: dict[str, Any]) -> None:
        self.session, self.shape = session, shape
        self.capacity = self.length = 0
        self._deadline = NEVER
        self._kept: dict[bool, dict[bytes, list[np.ndarray]]] = {False: {}, True: {}}

    def begin(self, length: int, pictured: bool, deadline: Deadline = NEVER) -> None:
        """Empty the cache and make room for `length` positions.

        Args:
            length: of the whole sequence.
            pictured: whether there is a picture in it: the adapter that has learnt pictures is on for all of it then,
                and off otherwise, so that what is done with words alone does not depend on it.
            deadline: ends the passes that follow.

        Raises:
            ImcError: they are more than the model holds.
        """
        self._deadline = deadline
        self._pictured, self._adapter = pictured, np.array([pictured], np.float32)
        check_room(length, self.shape["positions"])
        self.length = 0
        if length <= self.capacity:
            return
        capacity = -(-length // CACHE_STEP) * CACHE_STEP
        binding, buffers = self.session.io_binding(), []
        size = (1, self.shape["kv_heads"], capacity, self.shape["head_dim"])
        for i in range(self.shape["layers"]):
            for s in "kv":
                buffer = np.zeros(size, np.float32)
                place = ("cpu", 0, np.float32, size, buffer.ctypes.data)
                binding.bind_input(f"past_{i}_{s}", *place)
                binding.bind_output(f"present_{i}_{s}", *place)
                buffers.append(buffer)
        # All at once, and last: where memory is short, the next answer finds what was there before.
        self.binding, self.buffers, self.capacity = binding, buffers, capacity

    def extend(self, embeds: np.ndarray, last: int = 1, keep: int = 0) -> np.ndarray:
        """Append embeddings to the sequence.

        Args:
            embeds: float32 [S, hidden].
            last: logits are wanted after the last so many of them.
            keep: so many are what sequences often begin with: they are read by themselves, once, and their part of the
                cache is kept for the next sequence that begins with them. 0 where this is no beginning.

        Returns:
            float32 [last, vocab].
        """
        embeds = self._behind_beginning(embeds, last, keep)
        count, past = len(embeds), self.length
        bias = np.zeros((count, past + count), np.float32)
        logits = self.run(embeds, np.arange(past, past + count), bias, np.arange(count - last, count))
        self.length = past + count
        return logits

    def _behind_beginning(self, embeds: np.ndarray, last: int, keep: int) -> np.ndarray:
        """What is left of a sequence's embeddings once the first `keep` are in the cache, if those are read by
        themselves."""
        # A single token takes another kernel, which rounds differently.
        if not 0 < keep <= len(embeds) - max(last, 2):
            return embeds
        self.begin_with(embeds[:keep])
        return embeds[keep:]

    def begin_with(self, embeds: np.ndarray) -> None:
        """Put float32 [S, hidden] into the empty cache, as it was kept or by reading them; it is kept then."""
        # The same embeddings are read otherwise with the adapter on.
        known, key, count = self._kept[self._pictured], embeds.tobytes(), len(embeds)
        if key not in known:
            self.extend(embeds)
            if len(known) == MOST_KEPT[self._pictured]:
                del known[next(iter(known))]
            known[key] = [buffer[:, :, :count].copy() for buffer in self.buffers]
        for buffer, kept in zip(self.buffers, known[key], strict=True):
            buffer[:, :, :count] = kept
        self.length = count

    def branch(self, embeds: np.ndarray, lengths: Sequence[int], where: Sequence[int] | None = None) -> np.ndarray:
        """Logits of several continuations side by side; the cache keeps none of them.

        Args:
            embeds: float32 [sum(lengths), hidden].
            lengths: of the continuations.
            where: positions among the embeddings whose logits are wanted; all of them by default.

        Returns:
            float32 [positions wanted, vocab].
        """
        bias, positions = _side_by_side(self.length, lengths)
        return self.run(embeds, positions, bias, np.arange(len(embeds)) if where is None else np.asarray(where))

    def extend_and_branch(
        self, embeds: np.ndarray, last: int, keep: int, branches: np.ndarray, lengths: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """`extend`, then `branch` with what is behind it, in one pass where that gives the same to the last bit.

        Args:
            embeds, last, keep: of `extend`.
            branches: float32 [sum(lengths), hidden].
            lengths: of the continuations, which may be none.

        Returns:
            float32 [last, vocab] and [sum(lengths), vocab].
        """
        embeds = self._behind_beginning(embeds, last, keep)
        count, past, total = len(embeds), self.length, len(branches)
        # The operator numbers the positions of a first pass by itself, and a single token takes another kernel.
        if not past or total < 2:
            rows = self.extend(embeds, last)
            return rows, self.branch(branches, lengths) if total else rows[:0]
        beside, positions = _side_by_side(past + count, lengths)
        bias = np.full((count + total, past + count + total), BLOCKED, np.float32)
        bias[:count, : past + count], bias[count:] = 0, beside
        where = np.arange(count - last, count + total)
        places = np.concatenate([np.arange(past, past + count), positions])
        logits = self.run(np.concatenate([embeds, branches]), places, bias, where)
        self.length = past + count
        return logits[:last], logits[last:]

    def run(self, embeds: np.ndarray, positions: np.ndarray, bias: np.ndarray, where: np.ndarray) -> np.ndarray:
        """One pass: float32 [S, hidden] at their positions, bias float32 [S, past + S] -> logits at `where`.

        Raises:
            DeadlineError: the deadline passed meanwhile.
        """
        total = bias.shape[1]
        feeds = {
            "inputs_embeds": np.ascontiguousarray(embeds[None], np.float32),
            "position_ids": positions[None].astype(np.int64),
            "attention_bias": bias[None, None],
            "seqlens_k": np.array([total - 1], np.int32),
            "total_length": np.array([total], np.int32),
            "where": where.astype(np.int64),
            "adapter": self._adapter,
        }
        for name, value in feeds.items():
            self.binding.bind_cpu_input(name, value)
        self.binding.bind_output("logits", "cpu")
        try:
            with interruptible(self._deadline) as options:
                self.session.run_with_iobinding(self.binding, options)
        except DeadlineError:
            raise
        except Exception as error:  # ONNX Runtime raises bare pybind types
            raise ImcError(f"ONNX Runtime failed in the decoder ({str(error).splitlines()[0]})") from error
        outputs = self.binding.get_outputs()
        return outputs[self._logits_index].numpy()

    @cached_property
    def _logits_index(self) -> int:
        """Outputs come in the order they were bound: the cache first, the logits last."""
        return len(self.buffers)


def _side_by_side(past: int, lengths: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Attention bias float32 [sum(lengths), past + sum(lengths)] and positions int64 [sum(lengths)] of continuations
    that see what is before them all, and none of the others."""
    total = sum(lengths)
    bias = np.full((total, past + total), BLOCKED, np.float32)
    bias[:, :past] = 0
    at, positions = 0, []
    for length in lengths:
        bias[at : at + length, past + at : past + at + length] = 0
        positions.append(np.arange(past, past + length))
        at += length
    return bias, np.concatenate(positions)
