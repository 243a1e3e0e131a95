"""A confidence fitted to a model's answers whose truth is known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from imc_lite.pdc.familiarity import CLUSTERS, Familiarity, cluster, fit_clusters
from imc_lite.trust.confidence import Confidence, Rule, ceiling
from imc_lite.trust.promise import least_limit

RIDGE = 1e-3  # of the regressions, on standardized evidence
STEPS = 50  # of Newton's method
FEWEST = 50  # answers of each outcome


@dataclass(frozen=True)
class Observed:
    """One answer.

    picture: a number; found: float64 [8], `imc_lite.trust.confidence.evidence` at a distance of 1; pooled: float64
    [2 D], of the tokens that were shown; right: whether it was the expected one; same: the share of other wordings
    that get the same answer, None where none were asked.
    """

    picture: int
    found: np.ndarray
    pooled: np.ndarray
    right: bool
    same: float | None = None


def fit_confidence(
    answers: list[Observed],
    control: list[Observed],
    pictures: np.ndarray,
    checked: np.ndarray,
    facts: dict[str, object],
    seed: int = 0,
) -> Confidence:
    """The confidence of a model.

    Args:
        answers: about pictures clean and noisy, that the model was not trained on.
        control: about others of them, in random order, which say what limits can be promised.
        pictures: pooled clean pictures of the known kinds, float64 [P, F], none of those of `control`.
        checked: other pooled clean pictures of these kinds, float64 [Q, F], likewise; the pictures of a cluster that is
            left out stand for those of kinds that are not known.
        facts: see `Confidence`.
        seed: of the clusters.

    Raises:
        ValueError: fewer than 50 right answers, or as few wrong ones.
    """
    right = np.array([answer.right for answer in answers], float)
    if min(right.sum(), len(right) - right.sum()) < FEWEST:
        raise ValueError(f"{int(right.sum())} answers are right and {int(len(right) - right.sum())} wrong")
    familiarity = fit_familiarity(pictures, checked, np.stack([answer.pooled for answer in answers]), seed)
    counted = {"answers": len(answers), "pictures": len(pictures), "control": len({a.picture for a in control})}
    rule = _fit_rule(familiarity, answers, control)
    again, held = ([a for a in some if a.same is not None] for some in (answers, control))
    return Confidence(
        familiarity,
        rule,
        _fit_rule(familiarity, again, held, reworded=True) if again and held else None,
        facts | counted | {"seed": seed},
    )


def _fit_rule(
    familiarity: Familiarity, answers: list[Observed], control: list[Observed], reworded: bool = False
) -> Rule:
    """A rule from answers, and what it can promise about others."""
    found, most, right = _read(familiarity, answers, reworded)
    weights, bias = regress(found, right, ceilings=most)
    found, most, right = _read(familiarity, control, reworded)
    sure = most / (1 + np.exp(-(found @ weights) - bias))
    return Rule(weights, bias, least_limit(sure, right, np.array([a.picture for a in control])))


def _read(
    familiarity: Familiarity, answers: list[Observed], reworded: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Evidence [A, E], ceilings [A] and outcomes [A] of answers."""
    distances = familiarity.of_pooled(np.stack([a.pooled for a in answers]))
    found = np.stack([a.found for a in answers])
    found[:, -1] = np.log(distances)
    if reworded:
        found = np.column_stack([found, np.array([a.same for a in answers], float)])
    return found, ceiling(familiarity.probability(distances)), np.array([a.right for a in answers], float)


def fit_familiarity(pictures: np.ndarray, checked: np.ndarray, shown: np.ndarray, seed: int) -> Familiarity:
    """Clusters of pictures [P, F], and what distances from them mean: those of `checked` [Q, F] and `shown` [A, F] are
    of known kinds, those of `checked` from what is left without their own cluster are of none. Both weigh the same."""
    owners = cluster(pictures, CLUSTERS, np.random.default_rng(seed))
    whole = fit_clusters(pictures, owners)
    usual = float(np.median(whole.of_pooled(checked)))
    names = np.unique(owners)
    mine = names[((checked[:, None] - whole.centres) ** 2).sum(2).argmin(1)]
    far = []
    for left_out in names:
        rest = fit_clusters(pictures[owners != left_out], owners[owners != left_out])
        others, strange = checked[mine != left_out], checked[mine == left_out]
        if len(others) and len(strange):
            # Fewer pictures make another covariance: in units of what is usual there.
            far.append(rest.of_pooled(strange) * usual / np.median(rest.of_pooled(others)))
    near = whole.of_pooled(np.concatenate([checked, shown]))
    logs = np.log(np.concatenate([near, *far]))
    known = np.arange(len(logs)) < len(near)
    weights = np.where(known, 0.5 / known.sum(), 0.5 / max(1, (~known).sum())) * len(logs)
    slope, offset = regress(logs[:, None], known.astype(float), weights)
    return replace(whole, offset=offset, slope=-float(slope[0]))


def regress(
    found: np.ndarray, right: np.ndarray, weights: np.ndarray | None = None, ceilings: np.ndarray | None = None
) -> tuple[np.ndarray, float]:
    """Logistic regression with a ridge, by Fisher scoring: evidence [A, F], outcomes [A] in 0 and 1, what each weighs
    [A], and what the logistic is multiplied by [A] -> weights [F] and bias."""
    mean, scale = found.mean(0), found.std(0)
    scale = np.where(scale > 1e-9, scale, 1.0)
    x = np.column_stack([(found - mean) / scale, np.ones(len(found))])
    share = np.ones(len(found)) if weights is None else weights
    most = np.ones(len(found)) if ceilings is None else ceilings
    ridge = np.append(np.full(found.shape[1], RIDGE * len(found)), 0.0)
    w = np.zeros(x.shape[1])
    for _ in range(STEPS):
        logistic = 1 / (1 + np.exp(-np.clip(x @ w, -30, 30)))
        p = np.clip(most * logistic, 1e-9, 1 - 1e-9)
        moved = most * logistic * (1 - logistic)  # by one unit of the logit
        slope = x.T @ (share * (p - right) * moved / (p * (1 - p))) + ridge * w
        fisher = (x * (share * moved**2 / (p * (1 - p)))[:, None]).T @ x
        step = np.linalg.solve(fisher + np.diag(ridge + 1e-9), slope)
        w -= step
        if np.abs(step).max() < 1e-9:
            break
    plain = w[:-1] / scale
    return plain, float(w[-1] - mean @ plain)
