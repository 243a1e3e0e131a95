"""The conditions of a run, each kept in a file of its own, so that a run that was cut off goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import Any

from imc_lite.bench.conditions import ABLATED, STATED, Judge, Part
from imc_lite.bench.digest import code_digest
from imc_lite.bench.elsewhere import UpstreamJudge
from imc_lite.bench.plain import PlainJudge
from imc_lite.bench.plan import Plan
from imc_lite.bench.progress import Progress
from imc_lite.errors import ImcError
from imc_lite.files import write_atomically
from imc_lite.models.base import MLLM
from imc_lite.models.replicas import in_order, on, replicas
from imc_lite.pdc.prototypes import Prototypes
from imc_lite.trust.confidence import Confidence
from imc_lite.upstream.client import Upstream

# Seconds on one core, for the remaining time only.
ENCODE, ANSWER, REPAIR, WEIGH = 0.06, 0.03, 0.5, 0.3


class _GivenUp(Exception):
    """Another condition failed, or the run is ended."""


class Run:
    """The conditions of a plan and their files."""

    def __init__(
        self,
        model: MLLM,
        prototypes: Prototypes | None,
        plan: Plan,
        out: Path,
        confidence: Confidence | None = None,
        upstream: Upstream | None = None,
    ) -> None:
        """Take up the parts in `out`, a folder that is made.

        Args:
            model: answers, or looks and repairs for the upstream.
            prototypes: of its encoder; a plain run needs none.
            plan: pictures and questions.
            out: the folder.
            confidence: fitted for the model, if any.
            upstream: answers in the model's place.

        Raises:
            ImcError: the folder cannot be made, or holds parts of another plan or model.
        """
        self.plan, self.parts = plan, out / "parts"
        self._failed: BaseException | None = None
        # Another server's answers are waited for one by one.
        first, *self._others = [model] if upstream is not None else replicas(model)
        step = partial(self._step, "clean")
        if upstream is not None:
            self.judge: Judge = UpstreamJudge(upstream, first, prototypes, plan, step)
        elif plan.options.plain:
            self.judge = PlainJudge(first, prototypes, plan, step)
        else:
            self.judge = Judge(first, prototypes, plan, step, confidence)
        code = code_digest(model, type(self.judge).__module__)
        of = {"plan": plan.fingerprint(), "model": model.id, "version": model.version, "code": code}
        of["prototypes"] = "" if prototypes is None else prototypes.digest()
        of["confidence"] = "" if confidence is None else confidence.digest()
        of["arms"] = "plain" if plan.options.plain else "all"
        of["upstream"] = "" if upstream is None else f"{upstream.url} {upstream.model or ''}".strip()
        try:
            self.parts.mkdir(parents=True, exist_ok=True)
            kept = self.parts / "of.json"
            before = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else of
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "of.json in it cannot be read"
            raise ImcError(f"{out} cannot be used as the output folder ({why}); choose another one") from error
        if before != of:
            raise ImcError(
                f"{out} holds a run of other pictures, questions, code or another model; choose another folder"
            )
        self._write("of", of)
        if plan.options.generators:
            self._write("generators", self._sources(out))

    def go(self) -> dict[str, Part]:
        """Judge what is not judged yet, side by side where the model has replicas; every part by its name, "clean"
        first.

        Raises:
            ImcError: a condition cannot be judged or kept; others end with the picture that they are at.
        """
        jobs: dict[str, tuple[Callable[[Judge], Part], float]] = {"clean": (methodcaller("clean"), self._cost("clean"))}
        for name in self.judge.controls:
            jobs[name] = methodcaller("control", name), self._cost("control")
        for kind, severity in self.plan.image_conditions:
            cost = self._cost("ablated" if severity >= ABLATED else "image")
            jobs[f"{kind} {severity}"] = partial(self._image_noise, kind=kind, severity=severity), cost
        for kind, severity in self.plan.text_conditions:
            jobs[f"{kind} {severity}"] = methodcaller("text_noise", kind, severity), self._cost("text")
        with Progress([(name, cost) for name, (_, cost) in jobs.items()]) as self.progress:
            self._see_to(self.judge, "clean", jobs["clean"][0])
            # The others are made now, so that they know what is known of the clean pictures.
            judges = [self.judge, *(on(self.judge, model) for model in self._others)]
            left = [(name, work) for name, (work, _) in jobs.items() if name != "clean"]
            try:
                for _ in in_order(judges, lambda judge, job: self._see_to(judge, *job), left, ahead=len(left)):
                    pass
            except BaseException as error:
                self._failed = self._failed or error
                raise self._failed from None
        return {name: self._read(name) for name in jobs}

    def _see_to(self, judge: Judge, name: str, work: Callable[[Judge], Part]) -> None:
        """Judge one condition, if it is not judged yet."""
        if self._read(name) is None:
            self.progress.begin(name)
            judge.step = partial(self._step, name)
            try:
                self._write(name, work(judge))
            except BaseException as error:
                self._failed = self._failed or error
                raise
        self.progress.end(name)

    def _step(self, name: str, count: float, of: float) -> None:
        if self._failed is not None:
            raise _GivenUp
        self.progress.step(name, count, of)

    def _sources(self, out: Path) -> dict[str, str]:
        """What the noises of other projects in this folder come from: parts do not outlive a change of it."""
        before = self._read("generators") or {}
        now = {generator.name: generator.source for generator in self.plan.options.generators}
        for name, source in now.items():
            if before.get(name, source) != source:
                raise ImcError(f"{out} holds a run whose noise {name} had other code; choose another folder")
        return before | now

    def repaired(self) -> dict[int, str]:
        """Clean questions that repair changes, by their index; known once "clean" is judged."""
        return {int(i): text for i, text in self._read("clean")["repaired"].items()}

    def part(self, name: str) -> Path:
        """Where a condition is kept."""
        return self.parts / f"{name.replace(' ', '-')}.json"

    def _image_noise(self, judge: Judge, kind: str, severity: int) -> Part:
        return judge.image_noise(kind, severity, self.repaired())

    def _read(self, name: str) -> Any:
        try:
            return json.loads(self.part(name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ImcError(f"{self.part(name)} cannot be read ({error}); delete it and start again") from error

    def _write(self, name: str, value: Any) -> None:
        text = json.dumps(value, ensure_ascii=False, indent=1) + "\n"
        write_atomically(self.part(name), lambda file: file.write(text.encode()))

    def _cost(self, what: str) -> float:
        asked, pictures = len(self.plan.questions), len(self.plan.cases)
        damaged = sum(q.damaged for q in self.plan.questions)
        stated = sum(q.dataset in STATED for q in self.plan.questions)
        weighed = sum(map(len, self.judge.weighed)) * WEIGH
        return {
            "clean": weighed
            + pictures * ENCODE
            + asked * ANSWER
            + len({q.text for q in self.plan.questions}) * REPAIR / 2,
            "control": asked * ANSWER,
            "image": weighed + pictures * 2 * ENCODE + asked * 3 * ANSWER,
            "ablated": weighed + pictures * 3 * ENCODE + (asked * 3 + stated * 1.5) * ANSWER,
            "text": damaged * (2 * ANSWER + REPAIR + WEIGH),
        }[what]
