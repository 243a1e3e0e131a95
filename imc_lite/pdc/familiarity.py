"""How far a picture lies from the kinds of picture that a model knows, by the tokens that its language model is shown.

The encoder's shallow statistics say which noise a picture carries; what is in it shows in the tokens. Mean and
deviation over a picture's tokens, each of unit length, are compared with clusters of clean pictures by the Mahalanobis
distance with one covariance for all clusters (Lee et al. 2018, arXiv 1807.03888), which is shrunk towards a multiple of
the identity and kept as its leading directions. Unit length, because pictures of no known kind have small features,
which would lie near the middle of all clusters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CLUSTERS, DIRECTIONS, SHRINKAGE = 8, 128, 0.2
ROUNDS = 50  # of k-means
LEAST = 1e-12  # variance of a feature, far below that of different pictures: copies of one picture have none


def pooled(tokens: np.ndarray) -> np.ndarray:
    """Tokens float [..., N, D] -> float64 [..., 2 D]: mean and deviation, each of unit length."""
    values = np.asarray(tokens, np.float64)
    parts = (values.mean(-2), values.std(-2))
    return np.concatenate([part / (np.linalg.norm(part, axis=-1, keepdims=True) + 1e-12) for part in parts], -1)


@dataclass(frozen=True)
class Familiarity:
    """Clusters of clean pictures, and what their distances mean.

    Attributes:
        centres: float32 [C, 2 D].
        directions: float32 [2 D, R], scaled: what the covariance's leading directions take off the squared distance.
        variance: of every other direction.
        offset, slope: the logit that a picture is of a known kind is offset - slope * log(distance).
    """

    centres: np.ndarray
    directions: np.ndarray
    variance: float
    offset: float = 0.0
    slope: float = 0.0

    def distance(self, tokens: np.ndarray) -> np.ndarray:
        """Squared Mahalanobis distance to the nearest cluster, a feature: float [..., N, D] -> float64 [...]."""
        return self.of_pooled(pooled(tokens))

    def of_pooled(self, values: np.ndarray) -> np.ndarray:
        """`distance` of what `pooled` gives, float64 [..., 2 D]."""
        apart = values[..., None, :] - self.centres
        squared = (apart**2).sum(-1) / self.variance - ((apart @ self.directions) ** 2).sum(-1)
        return np.maximum(squared.min(-1), 1e-12) / values.shape[-1]

    def probability(self, distance: np.ndarray | float) -> np.ndarray:
        """That pictures at these distances are of a known kind."""
        return 1 / (1 + np.exp(self.slope * np.log(distance) - self.offset))


def fit_clusters(values: np.ndarray, clusters: np.ndarray) -> Familiarity:
    """Centres and covariance of pooled pictures float64 [P, F], given the cluster of each, int [P]."""
    names = np.unique(clusters)
    centres = np.stack([values[clusters == name].mean(0) for name in names])
    apart = values - centres[np.searchsorted(names, clusters)]
    scale = max(float((apart**2).mean()), LEAST)
    # The covariance's directions are as many as pictures at most, and are found by the pictures' products: a singular
    # value decomposition of what lacks full rank does not always converge.
    lengths, mixed = np.linalg.eigh(apart @ apart.T / len(apart))
    kept = np.flatnonzero(lengths > 1e-9 * lengths[-1])[::-1][:DIRECTIONS]
    rows = mixed[:, kept].T @ apart / np.sqrt(len(apart) * lengths[kept])[:, None]
    variance = SHRINKAGE * scale
    along = (1 - SHRINKAGE) * lengths[kept] + variance
    directions = rows.T * np.sqrt(1 / variance - 1 / along)
    return Familiarity(centres.astype(np.float32), directions.astype(np.float32), variance)


def cluster(values: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """k-means, begun as k-means++ (Arthur & Vassilvitskii 2007): pooled pictures [P, F] -> int [P]."""
    centres = values[rng.integers(len(values))][None]
    nearest = ((values - centres[0]) ** 2).sum(1)
    while len(centres) < min(count, len(values)) and nearest.sum() > 0:
        centres = np.vstack([centres, values[rng.choice(len(values), p=nearest / nearest.sum())]])
        nearest = np.minimum(nearest, ((values - centres[-1]) ** 2).sum(1))
    owners = np.zeros(len(values), int)
    for _ in range(ROUNDS):
        found = ((centres**2).sum(1) - 2 * values @ centres.T).argmin(1)
        if (found == owners).all():
            break
        owners = found
        centres = np.stack(
            [values[owners == c].mean(0) if (owners == c).any() else centre for c, centre in enumerate(centres)]
        )
    return owners
