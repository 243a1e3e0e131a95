"""`Family`: all that the package knows of one family of vision-language models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from imc_lite.errors import ImcError
from imc_lite.models.special_tokens import defuse

if TYPE_CHECKING:
    import torch

Step = list[Any]  # of `imc_lite.models.exported.picture_steps.prepare`: a name and its sizes in pixels


@dataclass(frozen=True)
class Family:
    """One family of models; a subclass says where it differs from the methods here. Paths are dotted attribute names.

    Attributes:
        name: as users know it.
        tower: the vision tower, below the model.
        projectors: below the model; their first arguments, side by side, are what `Perception.tokens` holds. A list of
            modules counts as its members.
        prompt: how a question is put when the checkpoint brings no chat template; {image} becomes the processor's
            image token or nothing.
        language: the language model without its output layer, below the model.
        blocks: below the tower, its list of transformer blocks; the first path that is there.
        options: of the processor's call, so that one picture is one pass of the tower.
        side: pictures are padded to a square of so many pixels first, so that all have the same number of tokens;
            None where the processor sees to that.
        bidirectional: in the language model a picture's tokens see each other, whichever comes first.
    """

    name: str
    tower: str
    projectors: tuple[str, ...]
    prompt: str
    language: str = "model.language_model"
    blocks: tuple[str, ...] = ("encoder.layers", "vision_model.encoder.layers", "blocks")
    options: Mapping[str, Any] = field(default_factory=dict)
    side: int | None = None
    bidirectional: bool = False

    def load_processor(self, name: str, **source: Any) -> Any:
        """The checkpoint's processor, from a hub's name or a folder; `source` goes to `from_pretrained`."""
        from transformers import AutoProcessor

        return AutoProcessor.from_pretrained(name, **source)

    def render(self, processor: Any, question: str, with_image: bool) -> str:
        """The whole prompt up to where the answer begins, through the checkpoint's chat template where it has one.

        Args:
            processor: of the checkpoint.
            question: control tokens in it become plain text.
            with_image: put the picture's token before the question.
        """
        question = defuse(question, self.control_tokens(processor))
        if getattr(processor, "chat_template", None):
            content = [{"type": "image"}] if with_image else []
            message = {"role": "user", "content": [*content, {"type": "text", "text": question}]}
            return processor.apply_chat_template([message], add_generation_prompt=True, tokenize=False)
        return self.prompt.format(image=self.image_token(processor) if with_image else "", question=question)

    def image_token(self, processor: Any) -> str:
        """What stands for a picture in a prompt that goes to the processor."""
        return processor.image_token

    def control_tokens(self, processor: Any) -> list[str]:
        """What a question must not hold, the longest first."""
        tokenizer = processor.tokenizer
        known = {str(t) for t in tokenizer.added_tokens_decoder.values() if t.special}
        known |= {t for t in (*tokenizer.all_special_tokens, self.image_token(processor), processor.image_token) if t}
        return sorted((t for t in known if len(t) > 1), key=lambda t: (-len(t), t))

    def embedded(self, seen: Any, given: Mapping[str, torch.Tensor]) -> Any:
        """What vLLM takes in the place of a picture; of a family without this it takes pixels alone.

        Args:
            seen: what `get_image_features` of the model gives for the picture.
            given: what it was given.
        """
        raise NotImplementedError

    def need_embeddings(self) -> None:
        """Refuse a family without `embedded`.

        Raises:
            ImcError: it is one.
        """
        if type(self).embedded is Family.embedded:
            raise ImcError(f"vLLM takes pictures of {self.name} as pixels alone; leave the `vllm:` out")

    def position_shift(self, model: Any) -> int:
        """After a prompt with a picture: how far the next position is beyond the number of tokens read."""
        return 0

    def picture_positions(
        self, model: Any, inputs: Mapping[str, torch.Tensor]
    ) -> tuple[list[list[int]] | None, int | None]:
        """Rotary positions of a picture's tokens on each axis, counted from the first, and how far they reach.

        Args:
            model: of this family.
            inputs: of one prompt with a picture, as the processor makes them.

        Returns:
            None twice where a picture's tokens are counted one by one, as words are.
        """
        return None, None

    def picture_spec(
        self, processor: Any, pixels: tuple[int, ...], given: Mapping[str, torch.Tensor]
    ) -> dict[str, Any]:
        """How a picture is prepared, as `imc_lite.models.exported.picture_steps.prepare` takes it.

        Args:
            processor: of the checkpoint.
            pixels: the shape of what the tower is given.
            given: what `get_image_features` of the model is given.
        """
        steps = processor.image_processor
        return {
            "pad": self.side,
            "resample": int(steps.resample),
            "scale": float(steps.rescale_factor),
            "mean": list(steps.image_mean),
            "std": list(steps.image_std),
            "views": self.views(steps, pixels),
            "patches": None,
        }

    def views(self, image_processor: Any, pixels: tuple[int, ...]) -> list[list[Step]]:
        """The steps that make each view of a picture; `pixels` is [views, 3, height, width]."""
        return [[["exact", *pixels[-2:]]]]
