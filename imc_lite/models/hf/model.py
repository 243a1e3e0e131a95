"""`HfMLLM`: a transformers vision-language model that shows its tokens and takes them back."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property, partial
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import nn

from imc_lite.models.base import Perception, check_room
from imc_lite.models.hf.families import family_of
from imc_lite.models.hf.parts import parts_of
from imc_lite.models.picture_shape import check_sides
from imc_lite.models.special_tokens import defuse
from imc_lite.models.torch_base import TorchMLLM

# A picture that only holds the place; a grey one would count as padding.
BLANK = np.full((32, 32, 3), 255, np.uint8)


class _Seen(Exception):
    """Ends a pass of which all that is wanted is known."""


class HfMLLM(TorchMLLM):
    """A loaded transformers model of a supported family. Implements `imc_lite.models.base.MLLM`.

    The tower runs once a picture: what the projector is given is kept as tokens, and given again, calibrated or not,
    when the question is answered. The model is put into evaluation mode and stays in it. Nothing else in it is changed:
    hooks and stand-ins are there only during a call.
    """

    statistics = "tokens"

    def __init__(self, model: Any, processor: Any, name: str | None = None, version: str | None = None) -> None:
        """Wrap a model.

        Args:
            model: a transformers model for conditional generation (`AutoModelForImageTextToText`); `model.eval()` is
                called on it.
            processor: the one that belongs to it (`AutoProcessor`).
            name: the id in results; the checkpoint's name by default.
            version: what stands for all its weights, where no commit of a hub does.

        Raises:
            ImcError: the family or its tower is not supported.
        """
        self.model, self.processor, self._version = model.eval(), processor, version
        self.family = family_of(model.config.model_type)
        self.id = name or model.config.name_or_path or model.config.model_type
        parts = parts_of(model, self.family)
        self.tower, self.blocks, self.early, self.projectors = parts.tower, parts.blocks, parts.early, parts.projectors
        self.ends = _ends(model, processor)
        weight = next(self.projectors[0].parameters())
        self.device, self.dtype = weight.device, weight.dtype
        self._lock = threading.RLock()  # hooks and stand-ins belong to one call at a time

    @cached_property
    def identity(self) -> dict[str, str]:
        """SHA-256 of the tower's weights and of the preprocessing: what prototypes belong to.

        Weights are hashed in bfloat16, so that a checkpoint stored in that keeps its identity when it is loaded in
        float32. One that is loaded in float16 has another: its smallest weights have lost bits by then.
        """
        weights = sha256()
        for name, tensor in sorted(self.tower.state_dict().items()):
            weights.update(f"{name} {tuple(tensor.shape)}".encode())
            weights.update(tensor.detach().bfloat16().contiguous().cpu().view(torch.int16).numpy())
        steps = self.processor.image_processor.to_dict() | dict(self.family.options)
        if self.family.side is not None:
            steps["side"] = self.family.side
        text = json.dumps(steps, sort_keys=True, default=str)
        return {"encoder": weights.hexdigest(), "preprocessing": sha256(text.encode()).hexdigest()}

    @property
    def version(self) -> str:
        """The checkpoint's commit where it came from a hub, else what it was given, else the beginning of its tower's
        SHA-256."""
        return str(getattr(self.model.config, "_commit_hash", None) or self._version or self.identity["encoder"][:12])

    def prototypes_file(self) -> None:
        """Checkpoints bring none."""

    @torch.inference_mode()
    def perceive(self, image: np.ndarray) -> Perception:
        """uint8 [H, W, 3] RGB -> tokens float32 [N, D], stats float32 [8 D'], from one tower pass.

        The tokens are the projectors' inputs: of several projectors side by side, of several views (the whole picture
        first) one after the other. The statistics are, for each of four early hidden states of width D', the D' means
        over the tokens of the whole picture and the D' standard deviations: what
        `imc_lite.kernels.match.reference.pool` makes of them, before its logarithm.
        """
        with self._lock:
            tokens, stats = self.look(self.visual(image))
        return Perception(tokens.cpu().numpy(), stats.cpu().numpy())

    def visual(self, image: np.ndarray) -> dict[str, torch.Tensor]:
        """What `get_image_features` of the model takes for one picture, uint8 [H, W, 3]."""
        return {k: v for k, v in self.inputs("", image).items() if k.startswith(("pixel", "image_"))}

    def look(self, given: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """`perceive` of prepared pixels, in torch: tokens [N, D] and statistics [8 D'], float32."""
        seen: list[torch.Tensor] = []
        shown: dict[int, torch.Tensor] = {}

        def show(i: int, tokens: torch.Tensor) -> None:
            shown[i] = tokens
            if len(shown) == len(self.projectors):
                raise _Seen  # the projectors are for the language model

        with ExitStack() as hooks:
            for block in self.early:
                hooks.callback(block.register_forward_pre_hook(_keep(seen.append), with_kwargs=True).remove)
            for i, projector in enumerate(self.projectors):
                keep = _keep(partial(show, i))
                hooks.callback(projector.register_forward_pre_hook(keep, with_kwargs=True).remove)
            with suppress(_Seen):
                self.model.get_image_features(**given)
        # Towers that take unbatched patches have one view.
        whole = [h[0] if h.dim() == 3 else h for h in seen]
        moments = [m for h in whole for m in (h.mean(0), h.std(0, correction=0))]
        tokens = [shown[i].flatten(0, -2) for i in range(len(self.projectors))]
        return torch.cat(tokens, 1), torch.cat(moments)

    def decode(self, ids: list[int]) -> str:
        return self.processor.tokenizer.decode(ids, skip_special_tokens=True).strip()

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text; control tokens written in it stay plain text."""
        plain = defuse(text, self.family.control_tokens(self.processor))
        return self.processor.tokenizer(plain, add_special_tokens=False)["input_ids"]

    def written(self, prompt: str, with_image: bool) -> tuple[str, dict[str, bool]]:
        """The whole prompt, and how a tokenizer is to take it: a chat template writes the first token itself."""
        text, start = self.family.render(self.processor, prompt, with_image), self.processor.tokenizer.bos_token
        return text, {"add_special_tokens": not (start and text.startswith(start))}

    def inputs(self, prompt: str, image: np.ndarray | None) -> dict[str, torch.Tensor]:
        """What the model takes for a question and at most one picture, uint8 [H, W, 3].

        Raises:
            ImcError: the picture is too thin.
        """
        text, how = self.written(prompt, image is not None)
        options = {"return_tensors": "pt", **how}
        if image is None:
            found = self.processor.tokenizer([text], **options)
        else:
            check_sides(image)
            picture = Image.fromarray(np.ascontiguousarray(image))
            if self.family.side is not None:
                picture = ImageOps.pad(picture, (self.family.side,) * 2)
            found = self.processor(text=[text], images=[picture], **options, **self.family.options)
        inputs = {name: value.to(self.device) for name, value in found.items()}
        return {n: v.to(self.dtype) if v.is_floating_point() else v for n, v in inputs.items()}

    @torch.inference_mode()
    def prefill(self, prompt: str, tokens: np.ndarray | None, room: int) -> tuple[torch.Tensor, Any, int]:
        """Logits [vocabulary] after the prompt, its cache, and the position of what follows."""
        inputs = self.inputs(prompt, None if tokens is None else BLANK)
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        length = inputs["input_ids"].shape[1]
        if limit is not None:
            check_room(length + room, limit)
        with self._lock, self._showing(tokens):
            out = self.model(**inputs, use_cache=True, logits_to_keep=1)
            shift = 0 if tokens is None else self.family.position_shift(self.model)
        return out.logits[0, -1], out.past_key_values, length + shift

    @torch.inference_mode()
    def embedded(self, tokens: np.ndarray) -> Any:
        """What vLLM takes in the place of a picture with these tokens, float32 [N, D], on the CPU.

        Raises:
            ImcError: of this family it takes pixels alone.
        """
        self.family.need_embeddings()
        given = self.visual(BLANK)
        with self._lock, self._showing(tokens):
            return self.family.embedded(self.model.get_image_features(**given), given)

    @contextmanager
    def _showing(self, tokens: np.ndarray | None) -> Iterator[None]:
        """Within, the projectors are given these tokens whatever the picture is, and the tower's blocks do not run."""
        if tokens is None:
            yield
            return
        parts = [p.contiguous() for p in self._tensor(tokens).to(self.dtype).chunk(len(self.projectors), 1)]
        with ExitStack() as undo:
            for block in self.blocks:
                undo.callback(put_back, block, vars(block).get("forward"))
                block.forward = pass_on
            for projector, part in zip(self.projectors, parts, strict=True):
                undo.callback(projector.register_forward_pre_hook(swap(part), with_kwargs=True).remove)
            yield


def _ends(model: Any, processor: Any) -> list[int]:
    settings = getattr(model, "generation_config", None)
    found = getattr(settings, "eos_token_id", None)
    found = processor.tokenizer.eos_token_id if found is None else found
    return list(found) if isinstance(found, (list, tuple)) else [found]


def pass_on(hidden_states: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    """In place of a block."""
    return hidden_states


def put_back(block: nn.Module, own: Any) -> None:
    if own is None:
        del block.forward
    else:  # loaders that place a model on devices put one there
        block.forward = own


def _keep(put: Callable[[torch.Tensor], object]) -> Any:
    """A forward pre-hook that keeps the first argument, in float32."""

    def hook(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        put((args[0] if args else next(iter(kwargs.values()))).detach().float())

    return hook


def swap(part: torch.Tensor) -> Any:
    """A forward pre-hook that puts tokens in place of the first argument."""

    def hook(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (part.view_as(args[0]), *args[1:]), kwargs
        name, given = next(iter(kwargs.items()))
        return args, {**kwargs, name: part.view_as(given)}

    return hook
