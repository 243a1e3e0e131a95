"""Model "imc_lite" of lmms-eval, so that its tasks can be run through PDC and SMS.

    python -m lmms_eval --model imc_lite --model_args model=default,pdc=true,sms=true --tasks TASK

lmms-eval (0.7) finds it by the entry point `lmms_eval.models`: https://github.com/EvolvingLMMs-Lab/lmms-eval
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from lmms_eval.api.instance import GenerationResult, Instance
from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest
from PIL import Image
from tqdm import tqdm

from imc_lite.errors import ImcError
from imc_lite.images.load import load_image
from imc_lite.pipeline import IMC, MAX_NEW_TOKENS
from imc_lite.sms.question import check_question

MANIFEST = ModelManifest(model_id="imc_lite", simple_class_path="imc_lite.integrations.lmms_eval.ImcLite")


class ImcLite(lmms):
    """One picture or none a question, one question at a time, answered greedily."""

    def __init__(
        self,
        model: str = "default",
        pdc: bool = True,
        sms: bool = True,
        prototypes: str | None = None,
        quant: str = "auto",
        threads: int = 1,
        offline: bool = False,
        device: str | None = None,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
    ) -> None:
        """Open a model; the arguments are those of `IMC.from_pretrained`, as `--model_args` gives them.

        `batch_size` and `max_batch_size` are what lmms-eval passes to every model, and change nothing here.

        Raises:
            ImcError: the model cannot be opened.
        """
        super().__init__()
        self.imc = IMC.from_pretrained(
            model, device=device or "auto", quant=quant, threads=threads, offline=offline, pdc=pdc, sms=sms,
            prototypes=None if prototypes is None else Path(prototypes),
        )  # fmt: skip

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Answers, cut at the task's `until` and `max_new_tokens`; sampling settings change nothing.

        Raises:
            ImcError: a question cannot be asked: no text, too long, several pictures, video or sound.
        """
        answers = []
        for request in tqdm(requests, desc="imc-lite"):
            context, settings, *where = request.args
            question, tokens = self._ask(context, *where)
            most = settings.get("max_new_tokens") or MAX_NEW_TOKENS
            text = self.imc.model.generate(question, tokens, most).text
            until = settings.get("until") or []
            for stop in [until] if isinstance(until, str) else until:
                text = text.split(stop)[0] if stop else text
            self.cache_hook.add_partial("generate_until", (context, settings), text)
            answers.append(text)
        return answers

    def loglikelihood(self, requests: list[Instance]) -> list[GenerationResult]:
        """Mean negative log-likelihood of a continuation's tokens, and whether greedy decoding writes it.

        The loss, not its negative: lmms-eval takes the least of it, because that is what its own models return
        (its issue 370). The pair is wrapped: version 0.7.3 turns a bare one into text and then cannot read it.

        Raises:
            ImcError: as `generate_until`.
        """
        found: list[GenerationResult] = []
        # The choices of one question come one after another: they are scored in one pass.
        alike = groupby(tqdm(requests, desc="imc-lite"), key=lambda r: (r.args[0], *r.args[3:]))
        for (context, *_), group in alike:
            rows = [r.args for r in group]
            question, tokens = self._ask(context, *rows[0][2:])
            wanted = [self._continuation(*row[1:]).strip() for row in rows]
            scores = self.imc.model.score(question, wanted, tokens)
            greedy = self.imc.model.generate(question, tokens, max(map(len, scores))).text
            pairs = [(-float(np.mean(s)), w == greedy) for s, w in zip(scores, wanted, strict=True)]
            found += map(GenerationResult, pairs)
        return found

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        """Not supported.

        Raises:
            ImcError: always.
        """
        raise ImcError("imc_lite answers one question at a time; choose a task without several rounds")

    def _continuation(self, target: Any, _: Any, doc_id: int, task: str, split: str) -> str:
        return target if isinstance(target, str) else str(target(self.task_dict[task][split][doc_id]))

    def _ask(self, context: str, visuals: Any, doc_id: int, task: str, split: str) -> tuple[str, np.ndarray | None]:
        """The question as it is asked, and what the language model is shown, float32 [N, D] or None."""
        shown = visuals(self.task_dict[task][split][doc_id]) or []
        if len(shown) > 1 or not all(isinstance(v, Image.Image) for v in shown):
            what = ", ".join(type(v).__name__ for v in shown)
            raise ImcError(f"{task} shows {what} with one question; imc_lite takes one picture, choose another task")
        question = check_question(context)
        if self.imc.sms:
            question = self.imc.repair(question).repaired
        return question, self.imc.see(load_image(shown[0])).tokens if shown else None
