"""From right and wrong to figures: accuracies, intervals, and which share of a loss comes back.

The schema is described in docs/bench.md.
"""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from imc_lite.bench.calibration import sureness
from imc_lite.bench.conditions import CONTROLS, Judge
from imc_lite.bench.digest import code_digest
from imc_lite.bench.judging import RIGHT, SAID, UNASKED, WRONG
from imc_lite.bench.plan import Plan
from imc_lite.bench.stats import Bootstrap, percentiles
from imc_lite.noise import BANK_VERSION
from imc_lite.noise.image import FURTHER_KINDS, IMAGE_KINDS

if TYPE_CHECKING:
    from imc_lite.models.base import MLLM

FORMAT = 1
PICTURE, OTHERS = "picture", "others"
"""Scopes: the groups of questions that need the picture, pooled, and the rest."""


class Report:
    """Figures of a finished run."""

    def __init__(
        self,
        plan: Plan,
        parts: dict[str, dict[str, Any]],
        model: MLLM,
        judge: Judge | None = None,
    ) -> None:
        """A plan, its parts by name as `Run.go` gives them, the model that answered, and what judged."""
        self.plan, self.parts, self.model = plan, parts, model
        self.code = code_digest(model) if judge is None else code_digest(model, type(judge).__module__)
        # Another server, where one did.
        self.answered = parts["clean"].get("answered", {"id": model.id, "version": model.version})
        self.owners = np.array([q.picture for q in plan.questions])
        self.groups = np.array([q.group for q in plan.questions])
        self.closed = np.array([q.closed for q in plan.questions])
        self.bootstrap = Bootstrap(len(plan.cases), plan.options.seed)

    def to_dict(self) -> dict[str, Any]:
        """What `results.json` holds."""
        import PIL

        from imc_lite import __version__

        runtime = {name: import_module(name) for name in ("tokenizers", *self.model.runtime)}
        packages = {"numpy": np, "pillow": PIL, **runtime}
        options = self.plan.options
        sources = {}
        for source in sorted({c.source for c in self.plan.cases}):
            mine = {i for i, c in enumerate(self.plan.cases) if c.source == source}
            asked = sum(q.picture in mine for q in self.plan.questions)
            sources[source] = {"pictures": len(mine), "questions": asked}
        conditions = [self._condition("clean", 0, "none")]
        conditions += [self._condition(kind, severity, "image") for kind, severity in self.plan.image_conditions]
        conditions += [self._condition(kind, severity, "text") for kind, severity in self.plan.text_conditions]
        return {
            "format": FORMAT,
            "model": self.answered,
            "versions": {
                "imc_lite": __version__,
                "code": self.code[:12],
                "noise_bank": BANK_VERSION,
            }
            | {n: packages[n].__version__ for n in sorted(packages)},
            "seed": options.seed,
            "options": {
                "noises": list(options.noises),
                "severities": list(options.severities),
                "limit": options.limit,
                "questions": options.questions,
                "text_questions": options.text_questions,
                "arms": "plain" if options.plain else "all",
            },
            "data": {"fingerprint": self.plan.fingerprint(), "sources": sources},
            "groups": self._groups,
            "conditions": conditions,
            "recovered": {
                of: {scope: self._recovered(of, scope) for scope in (PICTURE, OTHERS)} for of in ("image", "text")
            },
            "worse": [
                f"{c['noise']} {c['severity']}: {arm}, {scope}"
                for c in conditions
                for arm, row in c["arms"].items()
                for scope, cell in row.items()
                if arm in ("pdc", "sms", "imc") and scope in (PICTURE, OTHERS) and cell["gain_95ci"][1] < 0
            ],
            "clean_pictures_with_identical_tokens": self.parts["clean"]["identical"],
            "clean_questions_changed": None if options.plain else len(self.parts["clean"]["repaired"]),
            "confusion": self._confusion(),
            "sureness": sureness(self.parts, self.plan, self.bootstrap),
        }

    def hits(self, part: str, arm: str) -> np.ndarray:
        """float64 [Q]: 1 right, 0 wrong, NaN not asked."""
        values = {RIGHT: 1.0, SAID: 1.0, WRONG: 0.0, UNASKED: np.nan}
        return np.array([values[c] for c in self.parts[part]["hits"][arm]])

    def mean(self, hits: np.ndarray) -> tuple[float, list[float], np.ndarray]:
        """Mean of the finite hits, its interval, and its bootstrap samples."""
        asked = np.isfinite(hits)
        samples = self.bootstrap.means(hits[asked], self.owners[asked])
        return round(float(hits[asked].mean()), 4), percentiles(samples), samples

    @cached_property
    def _groups(self) -> dict[str, dict[str, Any]]:
        """Every group with its controls; it needs the picture where another's costs it accuracy significantly."""
        table: dict[str, dict[str, Any]] = {}
        for group in sorted(set(self.groups)):
            mine = self.groups == group
            row: dict[str, Any] = {"n": int(mine.sum()), "pictures": len(set(self.owners[mine]))}
            for name in ("clean", *(control for control in CONTROLS if control in self.parts)):
                value, interval, _ = self.mean(np.where(mine, self.hits(name, "plain"), np.nan))
                row[name] = {"accuracy": value, "95ci": interval}
            fall = np.where(mine, self.hits("clean", "plain") - self.hits("shuffled", "plain"), np.nan)
            row["fall_shuffled"], row["fall_shuffled_95ci"], _ = self.mean(fall)
            row["needs_picture"] = row["fall_shuffled_95ci"][0] > 0
            table[group] = row
        return table

    @cached_property
    def scopes(self) -> dict[str, np.ndarray]:
        """bool [Q] of what accuracies are given for."""
        needing = np.isin(self.groups, [g for g, row in self._groups.items() if row["needs_picture"]])
        scopes = {
            PICTURE: needing,
            f"{PICTURE} closed": needing & self.closed,
            f"{PICTURE} open": needing & ~self.closed,
            OTHERS: ~needing,
        }
        scopes |= {group: self.groups == group for group in self._groups}
        return {name: mask for name, mask in scopes.items() if mask.any()}

    def _condition(self, kind: str, severity: int, of: str) -> dict[str, Any]:
        part = "clean" if of == "none" else f"{kind} {severity}"
        row: dict[str, Any] = {"noise": kind, "severity": severity, "of": of}
        if self.parts[part].get("verdicts") and kind in ("clean", *IMAGE_KINDS, *FURTHER_KINDS):
            verdicts = self.parts[part]["verdicts"]
            row["named"] = round(float(np.mean([v == kind for v, _ in verdicts])), 4)
        if self.parts[part].get("unanswered"):
            row["unanswered"] = self.parts[part]["unanswered"]
        row["arms"] = {}
        for arm in self.parts[part]["hits"]:
            cells = {scope: self._cell(part, arm, mask) for scope, mask in self.scopes.items()}
            row["arms"][arm] = {scope: cell for scope, cell in cells.items() if cell}
        return row

    def _cell(self, part: str, arm: str, mask: np.ndarray) -> dict[str, Any] | None:
        got = np.where(mask, self.hits(part, arm), np.nan)
        if not np.isfinite(got).any():
            return None
        value, interval, _ = self.mean(got)
        cell: dict[str, Any] = {"n": int(np.isfinite(got).sum()), "accuracy": value, "95ci": interval}
        exact = np.array([found == RIGHT for found in self.parts[part]["hits"][arm]], float)
        cell["exact"] = round(float(exact[np.isfinite(got)].mean()), 4)
        # Where an arm was asked fewer questions, it is compared on these.
        plain = np.where(np.isfinite(got), self.hits(part, "plain"), np.nan)
        clean = np.where(np.isfinite(got), self.hits("clean", "plain"), np.nan)
        loss, loss_interval, _ = self.mean(clean - plain)
        if arm == "plain":
            return cell | ({"loss": loss, "loss_95ci": loss_interval} if part != "clean" else {})
        gain, gain_interval, _ = self.mean(got - plain)
        cell |= {"gain": gain, "gain_95ci": gain_interval}
        if part != "clean" and loss_interval[0] > 0:
            cell["recovered"] = round(gain / loss, 4)
        return cell

    def _recovered(self, of: str, scope: str) -> dict[str, Any]:
        """Over the conditions with a significant loss: what all of them together lost, and how much came back."""
        mask = self.scopes.get(scope)
        found: dict[str, Any] = {"significant": [], "arms": {}}
        if mask is None:
            return found
        lost = []
        for kind, severity in self.plan.image_conditions if of == "image" else self.plan.text_conditions:
            name = f"{kind} {severity}"
            loss = np.where(mask, self.hits("clean", "plain") - self.hits(name, "plain"), np.nan)
            if np.isfinite(loss).any() and self.mean(loss)[1][0] > 0:
                lost.append(name)
        found["significant"] = lost
        arms = sorted({arm for name in lost for arm in self.parts[name]["hits"]} - {"plain"})
        for arm in arms:
            gains: list[float] = []
            losses: list[float] = []
            sampled: list[tuple[np.ndarray, np.ndarray]] = []
            names = [name for name in lost if arm in self.parts[name]["hits"]]
            for name in names:
                got = np.where(mask, self.hits(name, arm), np.nan)
                if not np.isfinite(got).any():
                    continue
                plain = self.hits(name, "plain")
                gain, _, gain_samples = self.mean(got - plain)
                could = np.where(np.isfinite(got), self.hits("clean", "plain") - plain, np.nan)
                lost_here, _, loss_samples = self.mean(could)
                if lost_here <= 0:  # an arm that was asked fewer questions may have nothing to give back on them
                    continue
                gains.append(gain)
                losses.append(lost_here)
                sampled.append((gain_samples, loss_samples))
            if not gains:
                continue
            with np.errstate(divide="ignore", invalid="ignore"):
                samples = np.sum([g for g, _ in sampled], 0) / np.sum([loss for _, loss in sampled], 0)
            found["arms"][arm] = {
                "conditions": len(gains),
                "share": round(sum(gains) / sum(losses), 4),
                "share_95ci": percentiles(samples),
                "mean_of_conditions": round(
                    float(np.mean([g / n for g, n in zip(gains, losses, strict=True) if n])), 4
                ),
            }
        return found

    def _confusion(self) -> dict[str, dict[str, int]]:
        """What the pictures of each noise were called, over all severities."""
        table = {"clean": Counter(v for v, _ in self.parts["clean"]["verdicts"])}
        for kind, severity in self.plan.image_conditions:
            table.setdefault(kind, Counter()).update(v for v, _ in self.parts[f"{kind} {severity}"]["verdicts"])
        columns = ("clean", *IMAGE_KINDS, *FURTHER_KINDS, "unknown")
        return {kind: {name: row[name] for name in columns if row[name]} for kind, row in table.items()}
