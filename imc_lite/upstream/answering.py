"""An upstream in the place of a model's language model: what it is shown, and asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from imc_lite.images.data_uri import data_uri, picture_uri
from imc_lite.images.load import LoadedImage
from imc_lite.models.base import MLLM, Generation
from imc_lite.models.deadline import Deadline
from imc_lite.pdc.prototypes import Prototypes
from imc_lite.pdc.recent import RecentPictures
from imc_lite.pdc.treat import RestoredPicture, restore_picture
from imc_lite.results import ImageReport
from imc_lite.upstream.chat import Chat
from imc_lite.upstream.client import Upstream


@dataclass(frozen=True)
class Shown:
    """A picture as the upstream is shown it.

    Attributes:
        report: the verdict, and what was done about it.
        url: a data URI.
        perceive_s: seconds of the encoder's pass.
        calibrate_s: seconds of matching and restoring.
        chat: asks the upstream.
    """

    report: ImageReport
    url: str
    perceive_s: float
    calibrate_s: float
    chat: Chat

    def ask(
        self,
        question: str,
        max_new_tokens: int,
        on_text: Callable[[str], object] | None,
        deadline: Deadline,
        top_logprobs: int,
    ) -> tuple[Generation, str]:
        """The answer, and the name of the model that gave it; see `Chat.ask`. `on_text` gets it once, whole."""
        generation, model = self.chat.ask(question, self.url, max_new_tokens, deadline, top_logprobs)
        if on_text is not None:
            on_text(generation.text)
        return generation, model


class UpstreamAnswers:
    """Shows pictures to an upstream, their noise taken out where that pays."""

    def __init__(
        self,
        upstream: Upstream,
        model: MLLM,
        prototypes: Prototypes | None,
        recent: RecentPictures[RestoredPicture],
    ) -> None:
        """Nothing is sent.

        Args:
            upstream: answers.
            model: its encoder looks for noise.
            prototypes: of that encoder; without them pictures are shown as they are.
            recent: what became of the last pictures.
        """
        self._chat, self._model, self._prototypes, self._recent = Chat(upstream), model, prototypes, recent

    def see(self, picture: LoadedImage) -> Shown:
        """What the upstream is shown of a picture: its own file, where nothing is to be restored."""
        seen = RestoredPicture(ImageReport(path=None), None, 0.0, 0.0)
        if self._prototypes is not None:
            seen = self._recent.get(picture.pixels, partial(restore_picture, self._model, self._prototypes))
        url = picture_uri(picture) if seen.pixels is None else data_uri(seen.pixels)
        return Shown(seen.report, url, seen.perceive_s, seen.restore_s, self._chat)
