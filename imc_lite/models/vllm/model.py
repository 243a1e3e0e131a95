"""`VllmMLLM`: tower and calibration of a transformers model, language model of vLLM."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from imc_lite.errors import ImcError
from imc_lite.models.base import BaseMLLM, Generation, TokenLogprob, check_room
from imc_lite.models.deadline import NEVER, Deadline
from imc_lite.models.greedy import added_by
from imc_lite.models.hf.load import load
from imc_lite.models.hf.model import HfMLLM
from imc_lite.models.vllm.engine import Engine, vllm

# Pictures come as embeddings, which vLLM takes where it is told so; at a limit of none it loads no tower of its own.
EMBEDDINGS = {"enable_mm_embeds": True, "limit_mm_per_prompt": {"image": 0}}
SHARE = 0.8  # of a GPU's memory that vLLM may take; tower and projector lie beside it


class VllmMLLM(HfMLLM):
    """A Hugging Face model whose pictures are looked at, and calibrated, here, and whose words vLLM writes.

    vLLM runs its language model alone, and is given what the projector makes of the calibrated tokens
    (https://docs.vllm.ai/en/latest/features/multimodal_inputs/). Several threads may ask at once and are answered
    together; how an answer's last digits round may hang on what else is asked meanwhile.

    Attributes:
        at_once: how many questions a batch asks at a time.
    """

    runtime = ("torch", "transformers", "vllm")
    at_once = 32
    text_only = BaseMLLM.text_only
    _engine: Engine | None = None

    def __init__(self, eyes: HfMLLM, start: Callable[[], Engine]) -> None:
        """Put together; `open` does so by name.

        Args:
            eyes: tower, projector and processor; its language model is not used.
            start: starts vLLM on the same checkpoint, with `EMBEDDINGS`. It is called when something is first asked,
                so that a program that hands the work to others (a batch on a cluster) holds no language model.
        """
        super().__init__(eyes.model, eyes.processor, eyes.id)
        self._start, self._starting = start, threading.Lock()

    @property
    def engine(self) -> Engine:
        """vLLM's, started when it is first wanted.

        Raises:
            ImcError: vLLM cannot open the checkpoint.
        """
        with self._starting:
            if self._engine is None:
                self._engine = self._start()
            return self._engine

    def ready(self) -> None:
        """Start vLLM, if it does not run.

        Raises:
            ImcError: it cannot open the checkpoint.
        """
        _ = self.engine

    def close(self) -> None:
        """End vLLM's processes; the end of this one does so too."""
        with self._starting:
            if self._engine is not None:
                self._engine.close()
                self._engine = None

    @classmethod
    def open(cls, name: str, *, device: str = "auto", offline: bool = False, **options: Any) -> VllmMLLM:
        """Open a checkpoint of a family of which vLLM takes embeddings: LLaVA, LLaVA-Next, Qwen2.5-VL, Qwen3-VL.

        vLLM starts processes of its own: a program that is run as a script opens it under
        `if __name__ == "__main__":`.

        Args:
            name: "organisation/name" on the Hugging Face hub, or a folder.
            device: where tower and projector run.
            offline: only what is in the hub's cache, or the folder.
            options: of `vllm.AsyncEngineArgs`, such as `max_model_len`, `gpu_memory_utilization` (0.8 unless given) or
                `quantization`.

        Raises:
            ImcError: it cannot be loaded, or vLLM takes only pixels of its family. What vLLM finds wrong is raised by
                the first question.
        """
        eyes = load(name, device=device, offline=offline, language=False)
        eyes.family.need_embeddings()
        source = _cached(name) if offline and not Path(name).is_dir() else name
        chosen = {"gpu_memory_utilization": SHARE, **options, **EMBEDDINGS, "trust_remote_code": False}
        return cls(eyes, partial(Engine, source, **chosen))

    def beside(self) -> VllmMLLM:
        """This one: threads need not take turns, since vLLM answers them together."""
        return self

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
        deadline.check()
        params = vllm.SamplingParams(
            temperature=0,
            max_tokens=max_new_tokens,
            logprobs=top_logprobs,
            stop_token_ids=self.ends,
            detokenize=False,
        )
        ids: list[int] = []
        for output in self.engine.ask(self._prompt(prompt, tokens, max_new_tokens), params, deadline):
            written = output.outputs[0]
            before, ids = len(ids), [i for i in written.token_ids if i not in self.ends]
            if on_text is not None and len(ids) > before:
                on_text(self.decode(ids))
        chances = written.logprobs or []
        logprobs = tuple(found[i].logprob for i, found in zip(written.token_ids, chances, strict=True))
        top = () if not top_logprobs else tuple(self._likeliest(ids, chances, top_logprobs))
        return Generation(self.decode(ids), logprobs, top, cut=len(written.token_ids) == len(ids))

    def score(
        self, prompt: str, candidates: Sequence[str], tokens: np.ndarray | None = None, deadline: Deadline = NEVER
    ) -> list[np.ndarray]:
        """Log-probability of every token of each candidate answer, then that it ends there: float32 [T_i + 1] each."""
        wanted = [self.encode(candidate) for candidate in candidates]
        if not wanted:
            return []
        before = self._prompt(prompt, tokens, max(map(len, wanted)) + 1)
        jobs = [(ids, end) for ids in wanted for end in self.ends]
        with ThreadPoolExecutor(min(len(jobs), self.at_once)) as pool:
            found = list(pool.map(lambda job: self._read(before, [*job[0], job[1]], deadline), jobs))
        rows = [found[at : at + len(self.ends)] for at in range(0, len(found), len(self.ends))]
        return [np.append(row[0][:-1], np.logaddexp.reduce([r[-1] for r in row])).astype(np.float32) for row in rows]

    def _read(self, before: dict[str, Any], ids: list[int], deadline: Deadline) -> np.ndarray:
        """Log-probabilities float64 [T] of ids that follow a prompt."""
        params = vllm.SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0, detokenize=False)
        prompt = {**before, "prompt_token_ids": [*before["prompt_token_ids"], *ids]}
        *_, output = self.engine.ask(prompt, params, deadline)
        chances = output.prompt_logprobs[-len(ids) :]
        return np.array([found[i].logprob for i, found in zip(ids, chances, strict=True)])

    def _prompt(self, prompt: str, tokens: np.ndarray | None, room: int) -> dict[str, Any]:
        """What vLLM takes; it puts as many places for the picture's one as there are embeddings.

        Raises:
            ImcError: prompt and `room` more tokens do not fit the context.
        """
        text, how = self.written(prompt, tokens is not None)
        found: dict[str, Any] = {"prompt_token_ids": self.processor.tokenizer(text, **how)["input_ids"]}
        length = len(found["prompt_token_ids"])
        if tokens is not None:
            shown = self.embedded(tokens)
            found["multi_modal_data"] = {"image": shown}
            length += (shown["image_embeds"] if isinstance(shown, dict) else shown).shape[-2] - 1
        check_room(length + room, self.engine.room)
        return found

    def _likeliest(
        self, ids: list[int], chances: Sequence[dict[int, Any]], count: int
    ) -> list[tuple[TokenLogprob, ...]]:
        """Of each token of the text the likeliest ones, the one that was written first."""
        listed = []
        for at, found in enumerate(chances[: len(ids)]):
            ranked = sorted(found, key=lambda i: (i != ids[at], -found[i].logprob, i))[:count]
            adds = added_by(ids[:at], self.decode, self.ends)
            listed.append(tuple(TokenLogprob(adds(i), found[i].logprob) for i in ranked))
        return listed


def _cached(name: str) -> str:
    """The folder of a checkpoint in the hub's cache, so that vLLM asks nobody for it."""
    from huggingface_hub import snapshot_download

    try:
        return str(snapshot_download(name, local_files_only=True))
    except Exception as error:  # the hub's client has an exception for each way of not having it
        raise ImcError(f"{name} is not in the hub's cache; fetch it first, or leave --offline out") from error
