"""What the pipeline asks of a multi-modal language model.

Any class with the methods of `MLLM` can be asked, measured and served; docs/models.md has one in thirty lines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from imc_lite.errors import ImcError
from imc_lite.models.deadline import NEVER, Deadline
from imc_lite.models.remembered import remembered

if TYPE_CHECKING:
    from imc_lite.pdc.matcher import Matcher
    from imc_lite.pdc.remedies import LowRankMap

MOST_NEW_TOKENS = 512
MOST_TOP_LOGPROBS = 20  # as in OpenAI's API
LONGER = 3  # tokens that an answer may be longer than the expected one before it is cut


@dataclass(frozen=True, eq=False)
class Perception:
    """One encoder pass over one image.

    tokens: float32 [N, D], what the projector takes.
    stats: float32 [S], shallow feature statistics of the same pass (which noise does it carry?).
    """

    tokens: np.ndarray
    stats: np.ndarray


@dataclass(frozen=True)
class TokenLogprob:
    """A token that was written or could have been: what it adds to the text, and its natural-log probability.

    The text is empty for a token that ends the answer, and for one whose character is whole only after the next.
    """

    text: str
    logprob: float


@dataclass(frozen=True)
class Generation:
    """Greedy text with the natural-log probability of each of its tokens (the end token included).

    top_logprobs: where they were asked for, of each token of the text (the end token left out) the likeliest ones, the
        one that was written first.
    cut: whether it was cut off before its end.
    """

    text: str
    logprobs: tuple[float, ...]
    top_logprobs: tuple[tuple[TokenLogprob, ...], ...] = ()
    cut: bool = False


@dataclass(frozen=True, eq=False)
class TextOnly:
    """An answer as it would be without the picture.

    logprobs: float32 [T + 1], natural-log probability of each of its tokens, then that it ends there; same: whether
    these would be written.
    """

    logprobs: np.ndarray
    same: bool


class MLLM(Protocol):
    """A multi-modal language model behind a few verbs.

    A model may have `text_only` of `BaseMLLM` besides; without it nobody knows whether its answers rest on the picture.

    One model may be used from several threads at once: a call that changes the model's state keeps the others waiting.
    One that answers several questions together sooner than one after the other has `at_once`, how many: a batch asks it
    so many at a time. One whose threads do more side by side than within an operator has `replicas`, which work so in
    its place (`imc_lite.models.replicas`). One that loads more when it is first asked has `ready`, which does so before
    a batch begins. One that may lie on a GPU says by `on_gpu` whether it does. One that reads the statistics of a
    picture sooner than it encodes the picture has `noise_statistics`, which gives `Perception.stats` alone: `inspect`
    needs no more.

    Attributes:
        id, version: what answers say they come from.
        statistics: what `Perception.stats` are, "quadrants" or "tokens" (`imc_lite.pdc.features.features`).
        runtime: modules whose versions belong into an answer's report.
        rewrites: whether it may propose repairs of its own: a model that passed `imc_lite.sms.selftest.can_rewrite`.
        identity: SHA-256 of the encoder's weights ("encoder") and of its preprocessing ("preprocessing"): what
            prototypes belong to.
    """

    @property
    def id(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def statistics(self) -> str: ...

    @property
    def runtime(self) -> tuple[str, ...]: ...

    @property
    def rewrites(self) -> bool: ...

    @property
    def identity(self) -> dict[str, str]: ...

    def prototypes_file(self) -> Path | None:
        """Noise prototypes that come with the model; None when they have to be built."""

    def perceive(self, image: np.ndarray) -> Perception:
        """Encode one image, uint8 [H, W, 3] RGB of any size (preprocessing is the model's own)."""
        ...

    def calibrate(self, tokens: np.ndarray, low_rank_map: LowRankMap) -> np.ndarray:
        """Tokens float32 [N, D] through one map of the model's prototypes."""
        ...

    def evidence(self, matcher: Matcher, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What `Matcher.evidence` does to features [B, F], computed where the model runs."""
        ...

    def generate(
        self,
        prompt: str,
        tokens: np.ndarray | None,
        max_new_tokens: int = 32,
        on_text: Callable[[str], object] | None = None,
        deadline: Deadline = NEVER,
        top_logprobs: int = 0,
    ) -> Generation:
        """Answer `prompt` greedily.

        A model whose `generate` also has an argument `of_many` is given True there where other questions about the same
        tokens come with this one, so that it pays to keep what their prompts begin with.

        Args:
            prompt: the question.
            tokens: float32 [N, D] from `perceive`, calibrated or not; None for text alone.
            max_new_tokens: at least 1; the answer is cut off there.
            on_text: called with the text so far after every token; what it raises ends the answer.
            deadline: looked at before every token.
            top_logprobs: of each token, so many of the likeliest are given back (`Generation.top_logprobs`). It is only
                given where they are wanted: a model may do without this argument.

        Raises:
            ImcError: prompt and answer do not fit the context.
            DeadlineError: the answer is no longer wanted.
        """
        ...

    def score(
        self, prompt: str, candidates: Sequence[str], tokens: np.ndarray | None = None, deadline: Deadline = NEVER
    ) -> list[np.ndarray]:
        """Natural-log probability of every token of each candidate answer, then that it ends there.

        Returns one float32 [T_i + 1] a candidate. `deadline` is looked at before every pass. A model whose `score` also
        has an argument `fixed` is given True there where the prompt is the same in every repair, so that it may keep
        what it reads of it.

        Raises:
            ImcError: prompt and candidates do not fit the context.
            DeadlineError: the scores are no longer wanted.
        """
        ...

    def agrees(self, pairs: Sequence[tuple[str, str]], tokens: np.ndarray | None) -> list[bool]:
        """Whether the greedy answer to each question is the expected one (`same_answer`).

        Args:
            pairs: questions with the answers expected of them.
            tokens: float32 [N, D] of the picture that all are about, or None to ask without one.
        """
        ...

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text; special tokens written in it stay plain text."""
        ...


class BaseMLLM:
    """What a model has that does nothing of its own for these verbs; for the rest see `MLLM`."""

    statistics: str = "tokens"
    runtime: tuple[str, ...] = ()
    rewrites: bool = False

    def prototypes_file(self) -> Path | None:
        """None: they have to be built."""
        return None

    def confidence_file(self) -> Path | None:
        """A fitted confidence that comes with the model (`imc_lite.trust.confidence`); None: it has to be fitted."""
        return None

    def calibrate(self, tokens: np.ndarray, low_rank_map: LowRankMap) -> np.ndarray:
        """float32 [N, D] -> float32 [N, D], in numpy."""
        return low_rank_map.apply(tokens)

    def evidence(self, matcher: Matcher, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features [B, F] -> probabilities [B, K], out-of-distribution scores [B], in numpy, which is fast
        enough beside an encoder."""
        return matcher.evidence(values)

    @remembered
    def text_only(self: MLLM, prompt: str, answer: str, deadline: Deadline = NEVER) -> TextOnly:
        """An answer to `prompt` as it would be without a picture.

        Raises:
            ImcError: prompt and answer do not fit the context.
            DeadlineError: it is no longer wanted.
        """
        return TextOnly(self.score(prompt, [answer], None, deadline)[0], self.agrees([(prompt, answer)], None)[0])

    def agrees(self: MLLM, pairs: Sequence[tuple[str, str]], tokens: np.ndarray | None) -> list[bool]:
        """Whether what the model writes is the expected answer, one question after the other."""
        said = (self.generate(asked, tokens, len(self.encode(answer)) + LONGER).text for asked, answer in pairs)
        return [same_answer(text, answer) for text, (_, answer) in zip(said, pairs, strict=True)]


def optional_arguments(model: MLLM, top_logprobs: int, of_many: bool) -> dict[str, int]:
    """Arguments of `generate` that not every model has, where they are of use.

    Raises:
        ImcError: probabilities of single tokens are wanted of a model that does not give them.
    """
    more, known = {"top_logprobs": top_logprobs} if top_logprobs else {}, signature(model.generate).parameters
    if more and "top_logprobs" not in known:
        raise ImcError(f"the model {model.id} gives no probabilities of single tokens; do not ask for them")
    if of_many and "of_many" in known:
        more["of_many"] = True
    return more


def check_counts(max_new_tokens: int, top_logprobs: int) -> None:
    """Refuse numbers of tokens that cannot be meant.

    Raises:
        ImcError: `max_new_tokens` is not in 1-512, or `top_logprobs` is not in 0-20.
    """
    for name, count, least, most in (
        ("max_new_tokens", max_new_tokens, 1, MOST_NEW_TOKENS), ("top_logprobs", top_logprobs, 0, MOST_TOP_LOGPROBS)
    ):  # fmt: skip
        if isinstance(count, bool) or not hasattr(count, "__index__") or not least <= count <= most:
            raise ImcError(f"{name} is {count!r}; give {least} to {most}")


def check_room(needed: int, held: int) -> None:
    """Refuse a prompt and an answer of `needed` tokens together where the model holds `held`.

    Raises:
        ImcError: they are more.
    """
    if needed > held:
        raise ImcError(
            f"the question takes {needed} tokens with its answer, the model holds {held}; shorten the question"
        )


def versions(model: MLLM) -> dict[str, str]:
    """Of this package, and of what runs the model."""
    from importlib import import_module

    from imc_lite import __version__

    found = {name: getattr(import_module(name), "__version__", "unknown") for name in model.runtime}
    return {"imc_lite": __version__, **found}


def same_answer(said: str, expected: str) -> bool:
    """Whether two answers are the same but for case, spaces and a full stop."""
    return _plain(said) == _plain(expected)


def _plain(answer: str) -> str:
    return " ".join(answer.casefold().split()).removesuffix(".")
