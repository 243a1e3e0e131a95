"""Questions that list their possible answers, for models that know answers and not letters."""

from __future__ import annotations

import re

import numpy as np

from imc_lite.pipeline import IMC, MAX_NEW_TOKENS
from imc_lite.sms.question import check_question

_OPTION = re.compile(r"^\(?([A-H])[.):]\s*(\S.*)$", flags=re.M)


def answer_prompt(imc: IMC, prompt: str, tokens: np.ndarray | None) -> str:
    """The answer to a prompt, greedily.

    Where it lists options, a line each ("A. …", "B) …"), the one that the model finds likeliest as an answer to the
    question before them is chosen, by the mean log-probability of its tokens, and its letter is the answer.

    Args:
        imc: answers, and repairs the question where it does so.
        prompt: what a harness asks.
        tokens: float32 [N, D], what the language model is shown of the picture; None without one.

    Raises:
        ImcError: the question cannot be asked.
    """
    options = list(_OPTION.finditer(prompt))
    question = check_question(prompt[: options[0].start()] if len(options) > 1 else prompt)
    if imc.sms:
        question = imc.repair(question).repaired
    if len(options) < 2:
        return imc.model.generate(question, tokens, MAX_NEW_TOKENS).text
    scores = imc.model.score(question, [option[2].strip() for option in options], tokens)
    return options[int(np.argmax([score.mean() for score in scores]))][1]
