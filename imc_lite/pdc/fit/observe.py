"""What an encoder makes of clean pictures and their noisy copies: all that prototypes are fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from imc_lite.errors import ImcError, shown
from imc_lite.images.load import load_image
from imc_lite.images.resize import resize_picture, size_within
from imc_lite.noise.as_met import apply_as_met
from imc_lite.noise.image import apply_to_image
from imc_lite.noise.planes import REFERENCE
from imc_lite.noise.strange import strange_copies
from imc_lite.pdc.features import QUADRANTS, features, noise_statistics
from imc_lite.pdc.fit.discriminant import CONDITIONS, KNOWN, NAMED, OUT_OF_DISTRIBUTION
from imc_lite.pdc.fit.leading import COLUMNS
from imc_lite.pdc.fit.low_rank_map import RESTORED
from imc_lite.pdc.fit.panels import MOST, make_panel
from imc_lite.pdc.full_size import restore_for

if TYPE_CHECKING:
    from imc_lite.models.base import MLLM, Perception
    from imc_lite.models.default.packaged import PackagedEncoder

MOST_TOKENS = 256  # of a picture that has more, so many are kept to fit the maps, which treat all alike
HALF = float(np.finfo(np.float16).max)  # 65,504
FAR = 1_000_000
FIELDS = 3  # bias fields of each severity that a picture is put under: their directions differ
SIZES = 3  # at which a clean picture is seen for the second look, its own and two that are drawn
PANELS = 2  # of several pictures, in which each further clean one is seen
# Of its views, in the order of `observe_clean`. Panels that weigh as much as it does cost single clean pictures
# (docs/log.md).
WEIGHTS = 1.0, 1.0, *[0.25] * PANELS
CUT = 0.5, 0.9  # share of its sides that a part of a clean picture has


@dataclass(frozen=True)
class Shallow:
    """Features by which noise is told, of P pictures; rows are pictures.

    Attributes:
        known: float64 [P, 52, F], under every condition of `CONDITIONS`.
        biased: float64 [P, C, F], under bias fields of all directions.
        clean: float64 [P, A, F], as they are, at other sizes, and a part of them.
        strange: float64 [P, S, F], with something on them that no bank has.
    """

    known: np.ndarray
    biased: np.ndarray
    clean: np.ndarray
    strange: np.ndarray

    def of(self, kept: np.ndarray) -> Shallow:
        """Of some of the pictures: booleans, or their numbers."""
        return Shallow(self.known[kept], self.biased[kept], self.clean[kept], self.strange[kept])


@dataclass(frozen=True)
class Observations:
    """What the encoder makes of P pictures under every condition; rows are pictures.

    Attributes:
        own: by the model's encoder.
        tokens: float16 [P, V, N, D]: clean, under 51 noises and restored ones, as `fit_remedies` takes them; N at most
            256 and fewer of a tower whose tokens are wide.
        by_packaged: by the default model's encoder; None where it is not asked, or is the model's own.
        further: float64 [E, 4, F], features of further clean pictures (`observe_clean`); None where there are none.
    """

    own: Shallow
    tokens: np.ndarray
    by_packaged: Shallow | None = None
    further: np.ndarray | None = None


def observe_all(
    model: MLLM,
    images: list[Path],
    seed: int,
    workers: int,
    window: str | None,
    scratch: IO[bytes],
    packaged: PackagedEncoder | None = None,
) -> Observations:
    """Encode all pictures and their noisy copies, by `packaged` too; the tokens go into the file `scratch`.

    Raises:
        ImcError: as `build_prototypes`.
    """
    own: list[Shallow] = []
    by_packaged: list[Shallow] = []
    tokens = None
    with ThreadPoolExecutor(workers) as pool:
        jobs = pool.map(lambda i: observe(model, images[i], seed + i, window, packaged), range(len(images)))
        for i, seen in enumerate(tqdm(jobs, total=len(images), unit="picture", disable=None)):
            if tokens is None:
                tokens = np.memmap(scratch, np.float16, "w+", shape=(len(images), *seen.tokens.shape[1:]))
            own.append(seen.own)
            by_packaged += [] if seen.by_packaged is None else [seen.by_packaged]
            tokens[i] = seen.tokens[0]
    assert tokens is not None, "there are pictures"
    return Observations(_joined(own), tokens, _joined(by_packaged) if by_packaged else None)


def observe_clean(
    model: MLLM, images: list[Path], seed: int, workers: int, window: str | None, packaged: PackagedEncoder | None
) -> np.ndarray:
    """Features of clean pictures as they are, at another size, and in two panels with those after them, by
    `packaged` where it is given, else by the model's own encoder: float64 [E, 4, F].

    Raises:
        ImcError: a picture cannot be read, or the encoder's values for it are no numbers.
    """

    @lru_cache(MOST + workers)  # every picture is in the panels of those before it
    def picture(place: int) -> np.ndarray:
        return load_image(images[place], window=window)

    def see(place: int) -> np.ndarray:
        together = [picture((place + i) % len(images)) for i in range(MOST)]
        panels = [make_panel(together, seed + place + FAR * draw) for draw in range(PANELS)]
        views = together[0], apply_as_met(together[0], "clean", 0, seed + place), *panels
        seen = np.stack([noise_statistics(model, p) if packaged is None else packaged.stats(p) for p in views])
        _check(images[place], seen)
        return features(seen, model.statistics if packaged is None else QUADRANTS)

    with ThreadPoolExecutor(workers) as pool:
        jobs = pool.map(see, range(len(images)))
        return np.stack(list(tqdm(jobs, total=len(images), unit="picture", disable=None)))


def tokens_kept(count: int, width: int) -> int:
    """Of a picture's tokens so many are kept to fit the maps, of wide ones fewer, so that files and sums stay small."""
    return min(count, MOST_TOKENS, max(1, MOST_TOKENS * COLUMNS // width))


def observe(
    model: MLLM, path: Path, seed: int, window: str | None = None, packaged: PackagedEncoder | None = None
) -> Observations:
    """Encode one picture and its copies under every condition, as it is met (`imc_lite.noise.as_met`).

    Raises:
        ImcError: the picture cannot be read, or the encoder's values for it are no numbers or beyond half precision.
    """

    def perceive(picture: np.ndarray) -> Perception:
        seen = model.perceive(picture)
        _check(path, seen.stats, seen.tokens)
        return seen

    def statistics(picture: np.ndarray) -> np.ndarray:
        _check(path, stats := noise_statistics(model, picture))
        return stats

    def by_packaged(encoder: PackagedEncoder) -> Shallow:
        stats = [encoder.stats(picture) for picture in (*met[: len(KNOWN)], *copies)]
        _check(path, np.stack(stats))
        return _shallow(stats, sizes_of, QUADRANTS)

    image = load_image(path, window=window)
    # Examples of what is out of distribution are made at the reference size, as they always were.
    small = resize_picture(image, size_within(image.shape, REFERENCE))
    met = [apply_as_met(image, kind, severity, seed) for kind, severity in NAMED]
    unknown = [apply_to_image(small, kind, level, seed) for kind, level in OUT_OF_DISTRIBUTION]
    # A seed far from every other picture's, so that no two get the same field.
    biased = [
        apply_as_met(image, "bias_field", severity, seed + FAR * draw)
        for draw in range(1, FIELDS)
        for severity in range(1, 6)
    ]
    sizes = [apply_as_met(image, "clean", 0, seed + FAR * draw) for draw in range(1, SIZES)]
    clean, strange = [image, *sizes, _part(image, seed)], strange_copies(image, seed)
    default = model.statistics == QUADRANTS
    if packaged is None and not default:  # nobody looks again by these statistics
        biased, clean, strange = [], [], []
    copies = [*unknown, *biased, *clean, *strange]
    seen = [perceive(picture) for picture in (image, *met, *(restore_for(model, met[i], *NAMED[i]) for i in RESTORED))]
    known = [p.stats for p in seen[1 : 1 + len(KNOWN)]]
    own = [*known, *map(statistics, copies if default else unknown)]
    sizes_of = (len(CONDITIONS), len(biased), len(clean), len(strange))
    # The same places in every picture, strewn, so that rows and columns of the grid are all met.
    count, width = seen[0].tokens.shape
    places = np.sort(np.random.default_rng(0).permutation(count)[: tokens_kept(count, width)])
    return Observations(
        _shallow(own, sizes_of if default else (len(CONDITIONS), 0, 0, 0), model.statistics),
        np.stack([p.tokens[places] for p in seen]).astype(np.float16)[None],
        None if packaged is None else by_packaged(packaged),
    )


def _check(path: Path, stats: np.ndarray, tokens: np.ndarray | float = 0.0) -> None:
    # In half precision, as the maps are fitted, one such value would be infinite and spoil every map.
    if not ((np.abs(tokens) <= HALF).all() and np.isfinite(stats).all()):
        raise ImcError(
            f"for {shown(path)} or a noisy copy of it the encoder gives values that are no numbers or beyond "
            f"{HALF:,.0f}, to which nothing can be fitted; leave that picture out"
        )


def _part(image: np.ndarray, seed: int) -> np.ndarray:
    """Of a picture, uint8 [H, W, 3]: what is cut out of one is no less clean."""
    rng = np.random.default_rng([seed, len(CUT)])
    height, width = (max(1, int(n * share)) for n, share in zip(image.shape, [rng.uniform(*CUT)] * 2, strict=False))
    top, left = rng.integers(image.shape[0] - height + 1), rng.integers(image.shape[1] - width + 1)
    return np.ascontiguousarray(image[top : top + height, left : left + width])


def _shallow(stats: Sequence[np.ndarray], counts: tuple[int, int, int, int], statistics: str) -> Shallow:
    """One picture's statistics under every condition of `CONDITIONS`, under further bias fields, clean, and strange,
    so many of each, to features."""
    found = features(np.stack(stats), statistics)[None]
    known, more, clean, strange = np.split(found, np.cumsum(counts)[:-1], 1)
    first = [i for i, (kind, _) in enumerate(KNOWN) if kind == "bias_field"]
    return Shallow(known, np.concatenate([known[:, first], more], 1), clean, strange)


def _joined(parts: Sequence[Shallow]) -> Shallow:
    return Shallow(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Shallow)))
