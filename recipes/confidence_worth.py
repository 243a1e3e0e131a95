"""What a confidence is worth, from answers whose truth is known: figures, and lm-polygraph's estimators beside it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from imc_lite.bench.calibration import calibration_error, risk_coverage
from imc_lite.bench.stats import Bootstrap, percentiles
from imc_lite.models.default.onnx import OrtMLLM
from imc_lite.models.greedy import log_softmax
from imc_lite.trust.confidence import Confidence

RISKS = 0.1, 0.2, 0.3
SURE = 0.9  # an error above it is confidently wrong
# Of lm-polygraph: those that read the probabilities of one answer. The others sample several, ask the model in ways
# that it was never taught, or need another model.
ESTIMATORS = (
    "MaximumSequenceProbability",
    "Perplexity",
    "MeanTokenEntropy",
    "SelfCertainty",
    "RenyiNeg",
    "FisherRao",
    "BoostedProbSequence",
)


@dataclass(frozen=True)
class Row:
    """One answer; pooled: float64 [F], of the tokens that it was given from."""

    picture: int
    source: str
    noise: str
    severity: int
    group: str
    right: bool
    confidence: float
    reworded: float  # confidence where other wordings were asked too
    flipped: float  # share of other wordings with another answer
    mean: float  # token probability
    same: bool
    first: bool  # nobody had asked for this question and answer in this process
    assess: float  # seconds
    assess_reworded: float
    rest: float
    pooled: np.ndarray
    others: dict[str, float]  # of lm-polygraph, larger is surer


def figures(rows: list[Row], bootstrap: Bootstrap) -> dict[str, object]:
    """What the confidence is worth on some answers, alone and with other wordings."""
    right = np.array([float(r.right) for r in rows])
    owners = np.array([r.picture for r in rows])
    raw = np.array([r.mean for r in rows])
    rests = np.array([not r.same for r in rows])
    flipped = np.array([r.flipped for r in rows])
    known = np.isfinite(flipped)
    return {
        "answers": len(rows),
        "right": round(float(right.mean()), 4),
        **worth(np.array([r.confidence for r in rows]), right, owners, bootstrap),
        "reworded": worth(np.array([r.reworded for r in rows]), right, owners, bootstrap),
        "calibration_error_of_token_probability": round(calibration_error(raw, right), 4),
        "confidently_wrong_of_token_probability": round(float((raw[right == 0] > SURE).mean()), 4),
        "quadrants": {
            f"{'right' if hit else 'wrong'}, {'other' if other else 'same'} answer without the picture": round(
                float(((right == hit) & (rests == other)).mean()), 4
            )
            for hit in (1, 0)
            for other in (True, False)
        },
        "flipped": {
            name: round(float(flipped[known & mine].mean()), 4)
            for name, mine in (("all", right >= 0), ("right", right == 1), ("wrong", right == 0))
        },
    }


def worth(p: np.ndarray, right: np.ndarray, owners: np.ndarray, bootstrap: Bootstrap) -> dict[str, object]:
    """Of confidences: float [A], whether the answers are right [A], and their pictures [A]."""
    at = {}
    for risk in RISKS:
        given = 1 - p <= risk
        lost = float(1 - right[given].mean()) if given.any() else None
        at[str(risk)] = {
            "answered": round(float(given.mean()), 4),
            "answered_95ci": percentiles(bootstrap.means(given.astype(float), owners)),
            "wrong": None if lost is None else round(lost, 4),
            "wrong_95ci": percentiles(1 - bootstrap.means(right[given], owners[given])),
        }
    order = np.argsort(-p, kind="stable")[: round(0.8 * len(p))]
    area = risk_coverage(p, right)
    return {
        "calibration_error": round(calibration_error(p, right), 4),
        "risk_coverage": None if area is None else round(area, 4),
        "risk_at_80_coverage": round(float(1 - right[order].mean()), 4),
        "confidently_wrong": round(float((p[right == 0] > SURE).mean()), 4),
        "max_risk": at,
    }


def estimators(rows: list[Row], confidence: Confidence, known: np.ndarray) -> dict[str, float | None]:
    """Area under the risk-coverage curve of estimates of the same answers, as a share of random order's.

    known: pooled training pictures, float64 [P, F].
    """
    import torch
    from lm_polygraph.estimators import MahalanobisDistanceSeq

    right = np.array([float(r.right) for r in rows])
    values = np.stack([r.pooled for r in rows])
    found = {
        "confidence": np.array([r.confidence for r in rows]),
        "confidence, other wordings too": np.array([r.reworded for r in rows]),
        "our distance": -confidence.familiarity.of_pooled(values),
    }
    found |= {name: np.array([r.others[name] for r in rows]) for name in ESTIMATORS}
    stats = {
        f"{name}_decoder": torch.from_numpy(some.astype(np.float32))
        for name, some in (("embeddings", values), ("train_embeddings", known))
    }
    found["MahalanobisDistanceSeq"] = -np.nan_to_num(np.asarray(MahalanobisDistanceSeq()(stats), float))
    areas = {name: risk_coverage(sure, right) for name, sure in found.items()}
    return {name: None if area is None else round(area, 4) for name, area in areas.items()}


def of_lm_polygraph(model: OrtMLLM, question: str, tokens: np.ndarray, answer: str) -> dict[str, float]:
    """What the library's estimators say of one answer, larger for surer."""
    from lm_polygraph import estimators

    ids = model.encode(answer)
    with model._turn:
        embeds = np.concatenate([model.prompt_embeds(question, tokens), model.embed(ids)])
        model.decoder.begin(len(embeds) + 1, True)
        rows = log_softmax(model.decoder.extend(embeds, last=len(ids) + 1)).astype(np.float64)
    written = [*ids, model.config["prompt"]["end"][0]]
    stats = {
        "greedy_log_likelihoods": [rows[np.arange(len(written)), written]],
        "greedy_log_probs": [rows],
        "greedy_tokens": [written],
        "entropy": [-(np.exp(rows) * rows).sum(1)],
    }
    return {name: -float(getattr(estimators, name)()(stats)[0]) for name in ESTIMATORS}
