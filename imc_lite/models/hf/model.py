"""`HfMLLM`: a transformers vision-language model that shows its tokens and takes them back."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property, partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import nn

from imc_lite.errors import ImcError
from imc_lite.kernels import ops
from imc_lite.kernels.banks import CalibrationBank, MatchBank
from imc_lite.models.base import Generation, Perception
from imc_lite.models.control import defuse
from imc_lite.models.hf.families import blocks_of, early_blocks, family_of, find
from imc_lite.models.hf.prompt import control_tokens, render

if TYPE_CHECKING:
    from imc_lite.calibration import Transport
    from imc_lite.perception import Matcher

BESIDE = 8  # candidates scored in one pass; their logits are as wide as the vocabulary
BLANK = 255  # a picture that only holds the place; a grey one would count as padding


class _Seen(Exception):
    """All that is wanted of a pass is known."""


class HfMLLM:
    """A loaded transformers model of a supported family. Implements `imc_lite.models.base.MLLM`.

    The tower runs once a picture: what the projector is given is kept as tokens, and given again, calibrated or not,
    when the question is answered. Nothing in the model is changed; the hooks are there only during a call.
    """

    statistics = "tokens"
    runtime = ("torch", "transformers")

    def __init__(self, model: Any, processor: Any, name: str | None = None) -> None:
        """Wrap a model.

        Args:
            model: a transformers model for conditional generation (`AutoModelForImageTextToText`).
            processor: the one that belongs to it (`AutoProcessor`).
            name: the id in results; the checkpoint's name by default.

        Raises:
            ImcError: the family or its tower is not supported.
        """
        self.model, self.processor = model.eval(), processor
        self.family = family_of(model.config.model_type)
        self.id = name or model.config.name_or_path or model.config.model_type
        self.tower = find(model, self.family.tower)
        found = [find(model, path) for path in self.family.projectors]
        if self.tower is None or None in found:
            raise ImcError(f"{type(model).__name__} has no {self.family.tower}; load it for image-text-to-text")
        self.projectors = [p for part in found for p in (part if isinstance(part, nn.ModuleList) else [part])]
        self.blocks = blocks_of(self.tower, self.family)
        self.early = early_blocks(self.blocks)
        weight = next(self.projectors[0].parameters())
        self.device, self.dtype = weight.device, weight.dtype
        self._lock = threading.RLock()  # hooks and stand-ins belong to one call at a time
        self._bank: tuple[Any, MatchBank] | None = None

    @cached_property
    def identity(self) -> dict[str, str]:
        """SHA-256 of the tower's weights and of the preprocessing: what prototypes belong to.

        Weights are hashed in bfloat16, so that a checkpoint keeps its identity in whatever precision it is loaded.
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
        """The checkpoint's commit where it came from a hub, else the beginning of its tower's SHA-256."""
        return str(getattr(self.model.config, "_commit_hash", None) or self.identity["encoder"][:12])

    def prototypes_file(self) -> None:
        """Checkpoints bring none."""

    @torch.inference_mode()
    def perceive(self, image: np.ndarray) -> Perception:
        """uint8 [H, W, 3] RGB -> tokens float32 [N, D], stats float32 [8 D'], from one tower pass.

        The tokens are the projectors' inputs: of several projectors side by side, of several views (the whole picture
        first) one after the other. The statistics are, for each of four early hidden states of width D', the D' means
        over the tokens of the whole picture and the D' standard deviations, as `imc_lite.kernels.reference.pool` has
        them before its logarithm.
        """
        with self._lock:
            tokens, stats = self.look(self.visual(image))
        return Perception(tokens.cpu().numpy(), stats.cpu().numpy())

    def visual(self, image: np.ndarray) -> dict[str, torch.Tensor]:
        """What `get_image_features` of the model takes for one picture, uint8 [H, W, 3]."""
        return {k: v for k, v in self._inputs("", image).items() if k.startswith(("pixel", "image_"))}

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

    @torch.inference_mode()
    def calibrate(self, tokens: np.ndarray, transport: Transport) -> np.ndarray:
        """float32 [N, D] -> float32 [N, D], through one map; one kernel launch on CUDA."""
        parts = {n: self._tensor(getattr(transport, n))[None] for n in ("down", "up", "offset", "shift")}
        weight = torch.ones(1, 1, device=self.device)
        return ops.calibrate(self._tensor(tokens)[None], weight, CalibrationBank(**parts))[0][0].cpu().numpy()

    @torch.inference_mode()
    def evidence(self, matcher: Matcher, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features [B, F] -> probabilities float32 [B, K], novelty float32 [B]; one kernel launch on CUDA."""
        if self._bank is None or self._bank[0] is not matcher:
            names = ("mean", "whiten", "points", "bias", "precision", "reconstruct")
            arrays = (torch.from_numpy(np.asarray(getattr(matcher, n))) for n in names)
            self._bank = (matcher, MatchBank.build(*arrays, device=self.device))
        found = ops.match_stats(self._tensor(values), self._bank[1])
        return found.probabilities.cpu().numpy(), found.novelty.cpu().numpy()

    @torch.inference_mode()
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
            ImcError: prompt and answer do not fit the context.
        """
        logits, cache, place = self._prefill(prompt, tokens, max_new_tokens)
        ids: list[int] = []
        logprobs: list[float] = []
        while True:
            chances = logits.float().log_softmax(-1)
            best = int(chances.argmax())
            logprobs.append(float(chances[best]))
            if best in self.ends:
                break
            ids.append(best)
            if on_text is not None:
                on_text(self._decoded(ids))
            if len(ids) == max_new_tokens:
                break
            logits = self._after(torch.tensor([[best]]), cache, place)[0, -1]
            place += 1
        return Generation(self._decoded(ids), tuple(logprobs))

    def _decoded(self, ids: list[int]) -> str:
        return self.processor.tokenizer.decode(ids, skip_special_tokens=True).strip()

    @torch.inference_mode()
    def score(self, prompt: str, candidates: Sequence[str], tokens: np.ndarray | None = None) -> list[np.ndarray]:
        """Log-probability of every token of each candidate answer, then that it ends there: float32 [T_i] each.

        A model may have several end tokens; their probabilities are added. The prompt is read once.

        Raises:
            ImcError: prompt and candidates do not fit the context.
        """
        wanted = [self.encode(c) for c in candidates]
        logits, cache, place = self._prefill(prompt, tokens, max(map(len, wanted), default=0))
        first = logits.float().log_softmax(-1)
        out: list[np.ndarray] = []
        for at in range(0, len(wanted), BESIDE):
            out += self._score(first, cache, place, wanted[at : at + BESIDE])
        return out

    def _score(self, first: torch.Tensor, cache: Any, place: int, wanted: list[list[int]]) -> list[np.ndarray]:
        longest = max(map(len, wanted))
        rows = first.expand(len(wanted), 1, -1)
        if longest:
            # Padding stands to the right, where nothing before it looks.
            padded = torch.tensor([[*ids, *[0] * (longest - len(ids))] for ids in wanted])
            branches = copy.deepcopy(cache)
            branches.batch_repeat_interleave(len(wanted))
            rows = torch.cat([rows, self._after(padded, branches, place).float().log_softmax(-1)], 1)
        out = []
        for row, ids in zip(rows, wanted, strict=True):
            found = [row[i, token] for i, token in enumerate(ids)]
            out.append(torch.stack([*found, row[len(ids), self.ends].logsumexp(0)]).cpu().numpy())
        return out

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text; control tokens written in it stay plain text."""
        plain = defuse(text, control_tokens(self.processor))
        return self.processor.tokenizer(plain, add_special_tokens=False)["input_ids"]

    @cached_property
    def ends(self) -> list[int]:
        """Ids of the tokens that end an answer."""
        settings = getattr(self.model, "generation_config", None)
        found = getattr(settings, "eos_token_id", None)
        found = self.processor.tokenizer.eos_token_id if found is None else found
        return list(found) if isinstance(found, (list, tuple)) else [found]

    def _inputs(self, prompt: str, image: np.ndarray | None) -> dict[str, torch.Tensor]:
        text = render(self.processor, self.family, prompt, image is not None)
        start = self.processor.tokenizer.bos_token
        # A chat template writes the first token itself.
        options = {"return_tensors": "pt", "add_special_tokens": not (start and text.startswith(start))}
        if image is None:
            found = self.processor.tokenizer([text], **options)
        else:
            picture = Image.fromarray(np.ascontiguousarray(image))
            if self.family.side is not None:
                picture = ImageOps.pad(picture, (self.family.side,) * 2)
            found = self.processor(text=[text], images=[picture], **options, **self.family.options)
        inputs = {name: value.to(self.device) for name, value in found.items()}
        return {n: v.to(self.dtype) if v.is_floating_point() else v for n, v in inputs.items()}

    def _prefill(self, prompt: str, tokens: np.ndarray | None, room: int) -> tuple[torch.Tensor, Any, int]:
        """Logits [vocabulary] after the prompt, its cache, and the position of what follows."""
        image = None if tokens is None else np.full((32, 32, 3), BLANK, np.uint8)
        inputs = self._inputs(prompt, image)
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        length = inputs["input_ids"].shape[1]
        if limit is not None and length + room > limit:
            raise ImcError(
                f"the question takes {length + room} tokens with its answer, the model holds {limit}; "
                "shorten the question"
            )
        with self._lock, self._showing(tokens):
            out = self.model(**inputs, use_cache=True, logits_to_keep=1)
            # Qwen counts a picture's rows and columns, not its tokens, and keeps the difference from call to call.
            shift = getattr(self.model.model, "rope_deltas", None) if tokens is not None else None
        return out.logits[0, -1], out.past_key_values, length + (0 if shift is None else int(shift))

    def _after(self, ids: torch.Tensor, cache: Any, place: int) -> torch.Tensor:
        """Logits [B, T, vocabulary] of ids [B, T] that follow the cache, from position `place`."""
        places = torch.arange(place, place + ids.shape[1], device=self.device).expand(ids.shape)
        return self.model(
            input_ids=ids.to(self.device), position_ids=places, past_key_values=cache, use_cache=True
        ).logits

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

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(self.device)


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
