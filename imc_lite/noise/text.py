"""Noise in questions: `apply_to_text`, for every kind that is registered in `TEXT_NOISE`."""

from __future__ import annotations

import zlib

import numpy as np

from imc_lite.errors import ImcError
from imc_lite.noise import text_bank, text_unseen  # noqa: F401 (importing them registers their kinds)
from imc_lite.noise.edits import TEXT_NOISE, Damaged
from imc_lite.noise.registry import check_seed

TEXT_KINDS = TEXT_NOISE.names("bank")


def apply_to_text(text: str, kind: str, severity: int, seed: int) -> str:
    """A damaged copy of a text; the same arguments give the same text everywhere.

    A text without a word that the kind can damage comes back unchanged.

    Args:
        text: any text.
        kind: one of `TEXT_NOISE.names()`.
        severity: 1 (mild) to 5 (severe).
        seed: any non-negative integer.

    Raises:
        ImcError: unknown kind, no such severity or seed, or no text.
    """
    return damage_text(text, kind, severity, seed).text


def damage_text(text: str, kind: str, severity: int, seed: int) -> Damaged:
    """Like `apply_to_text`, with a record of every damaged place."""
    noise = TEXT_NOISE.find(kind)
    level = noise.level(severity)
    check_seed(seed)
    if not isinstance(text, str):
        raise ImcError(f"a question must be text, not {type(text).__name__}")
    # Half a surrogate pair, as a file name may hold, has no bytes of its own.
    data = text.encode("utf-8", "replace")
    rng = np.random.default_rng([seed, severity, zlib.crc32(kind.encode()), zlib.crc32(data)])
    words = text.split()
    edits = sorted(noise.function(words, level, rng), key=lambda e: e.start)
    if not edits:
        return Damaged(text, ())
    out, at = [], 0
    for edit in edits:
        out += words[at : edit.start]
        out += [edit.damaged] if edit.damaged else []
        at = edit.stop
    return Damaged(" ".join(out + words[at:]), tuple(edits))
