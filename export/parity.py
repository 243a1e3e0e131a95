"""Is a bundle the model it was made from? Pictures, prompts, every graph and greedy answers, compared with torch."""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from imc_lite.export.trace import ProjectorGraph, record

from imc_lite.bundle.store import Bundle
from imc_lite.errors import ImcError
from imc_lite.models.exported.model import ExportedMLLM
from imc_lite.models.exported.picture_steps import prepare
from imc_lite.models.greedy import log_softmax
from imc_lite.models.hf.model import HfMLLM

PICTURES = ((70, 90), (131, 47), (512, 400))  # odd sizes, tall, wide, large
PROMPTS, ANSWER = 12, 12  # random questions, half of them about a picture; tokens of each answer


@dataclass(frozen=True)
class Bounds:
    """What may differ.

    pixels: mean difference of prepared pixels, in their own units; resizing in torchvision differs from Pillow's.
    visual: largest difference of tokens, statistics and projected tokens, in shares of the largest value where that is
        above 1: the rounding of float32 grows with it.
    agreement: share of greedy tokens that are the same, each after torch's own beginning.
    divergence: mean Kullback-Leibler divergence of the next-token distributions, nats.
    """

    pixels: float = 0.02
    visual: float = 1e-4
    agreement: float = 0.99
    divergence: float = 1e-4

    @classmethod
    def of(cls, precision: str) -> Bounds:
        """What may differ where the language model's weights have this precision.

        Fewer bits change its distributions; how much is bounded. How many greedy tokens change with them depends on how
        sure the model is, so below 16 bits that is recorded and not bounded.
        """
        bounds = {"fp32": (0.99, 1e-4), "fp16": (0.97, 1e-2), "int8": (0, 5e-2), "int4": (0, 0.5)}
        agreement, divergence = bounds[precision]
        return cls(agreement=agreement, divergence=divergence)


def check(mllm: HfMLLM, bundle: Bundle, bounds: Bounds, seed: int) -> dict[str, Any]:
    """Compare a bundle with the model it was made from, on pictures and questions drawn with `seed`.

    Returns:
        The figures, as the manifest's "parity" holds them.

    Raises:
        ImcError: something differs more than its bound, which is named.
    """
    rng = np.random.default_rng(seed)
    exported = ExportedMLLM(bundle, device="cpu")
    pictures = [rng.integers(0, 256, (*size, 3), np.uint8) for size in PICTURES]
    found, shares = _vision(mllm, exported, pictures, bundle.manifest["encoder_only"])
    if not bundle.manifest["encoder_only"]:
        found |= _language(mllm, exported, pictures, rng)
    limits = {
        "pixels": (bounds.pixels, "prepared pixels"),
        "tower": (bounds.visual, "the tower"),
        "projector": (bounds.visual, "the projector"),
        "kl": (bounds.divergence, "the language model"),
    }
    judged = found | shares
    for name, (bound, what) in limits.items():
        if not judged.get(name, 0) <= bound:  # what is no number is within no bound
            raise ImcError(
                f"{what} of the export differ{'s' if what[0] == 't' else ''} from torch by {judged[name]:.2g}, at most "
                f"{bound:.2g} is allowed: nothing is written"
            )
    if found.get("agreement", 1) < bounds.agreement:
        raise ImcError(
            f"{found['agreement']:.1%} of the greedy tokens are torch's, at least {bounds.agreement:.0%} must be: "
            "nothing is written; choose a higher --precision"
        )
    return {name: float(f"{value:.3g}") for name, value in found.items()}


def _vision(
    mllm: HfMLLM, exported: ExportedMLLM, pictures: list[np.ndarray], encoder_only: bool
) -> tuple[dict[str, float], dict[str, float]]:
    """The largest differences, and those of tower and projector as shares (`Bounds.visual`)."""
    parts = ["tower"] if encoder_only else ["tower", "projector"]
    found, shares = dict.fromkeys(["pixels", *parts], 0.0), dict.fromkeys(parts, 0.0)

    def compare(part: str, mine: np.ndarray, wanted: np.ndarray) -> None:
        apart, scale = float(np.abs(mine - wanted).max()), max(1.0, float(np.abs(wanted).max()))
        if not np.isfinite(apart):
            apart, scale = float("inf"), 1.0
        found[part], shares[part] = max(found[part], apart), max(shares[part], apart / scale)

    for picture in pictures:
        recorded = record(mllm, picture)
        pixels = recorded.pixels.numpy()
        mine = prepare(picture, exported.config["picture"])
        if mine.shape != pixels.shape:
            raise ImcError(f"the processor of {mllm.id} makes {pixels.shape} of a picture, not {mine.shape}")
        found["pixels"] = float(np.maximum(found["pixels"], np.abs(mine - pixels).mean()))
        seen = mllm.perceive(picture)
        tokens, stats = exported.sessions["encoder"].run(["tokens", "stats"], {"pixels": pixels})
        compare("tower", tokens, seen.tokens)
        compare("tower", stats, seen.stats)
        if not encoder_only:
            with torch.inference_mode():
                wanted = ProjectorGraph(mllm, recorded)(torch.from_numpy(seen.tokens)).numpy()
            given = exported.sessions["projector"].run(["embeds"], {"tokens": seen.tokens})[0]
            compare("projector", given, wanted)
    return found, shares


def _language(
    mllm: HfMLLM, exported: ExportedMLLM, pictures: list[np.ndarray], rng: np.random.Generator
) -> dict[str, float]:
    """How often the bundle's next token is torch's, and how far the distributions are apart, along greedy answers of
    torch."""
    letters = list(string.ascii_letters + "     .,?")
    same, total, divergence = 0, 0, []
    for i in range(PROMPTS):
        question = " ".join("".join(rng.choice(letters, rng.integers(5, 60))).split()) or "?"
        picture = pictures[i % len(pictures)] if i % 2 else None
        tokens = None if picture is None else mllm.perceive(picture).tokens
        ids = exported.prompt_ids(question, picture is not None)
        if ids != mllm.inputs(question, picture)["input_ids"][0].tolist():
            raise ImcError(f"prompts of {mllm.id} cannot be rebuilt from its tokenizer alone; it cannot be exported")
        answer, rows = _greedy(mllm, question, tokens)
        memory, first = exported.read(ids, tokens, ANSWER)
        after = memory.extend(exported.embed(answer[:-1]), last=len(answer) - 1) if len(answer) > 1 else first[:0]
        mine = log_softmax(np.concatenate([first[None], after.reshape(-1, first.size)]).astype(np.float64))
        wanted = log_softmax(rows.astype(np.float64))
        same += int((mine.argmax(1) == wanted.argmax(1)).sum())
        total += len(rows)
        # A token that the model rules out has no part in it.
        with np.errstate(invalid="ignore"):
            divergence += np.where(wanted == -np.inf, 0, np.exp(wanted) * (wanted - mine)).sum(1).tolist()
    kl = float(np.mean(divergence))
    return {"greedy tokens": total, "agreement": same / total, "kl": 0.0 if kl < 0 else kl}


@torch.inference_mode()
def _greedy(mllm: HfMLLM, question: str, tokens: np.ndarray | None) -> tuple[list[int], np.ndarray]:
    """Torch's next tokens, [n], and the logits float32 [n, vocabulary] each was taken from."""
    logits, cache, place = mllm.prefill(question, tokens, ANSWER)
    rows = [logits.float().numpy()]
    for _ in range(ANSWER - 1):
        logits = mllm.after(torch.tensor([[int(rows[-1].argmax())]]), cache, place)[0, -1]
        place += 1
        rows.append(logits.float().numpy())
    return [int(row.argmax()) for row in rows], np.stack(rows)
