"""Can this model rewrite a damaged question itself? Asked of the model, not of its name."""

from __future__ import annotations

from imc_lite.models.base import MLLM
from imc_lite.sms.verifier import REPAIR

DAMAGED = (
    ("Is teh heart enlarged?", "Is the heart enlarged?"),
    ("Is there a fracure of the right clavicle?", "Is there a fracture of the right clavicle?"),
    ("What abnornality is seen in the left lung?", "What abnormality is seen in the left lung?"),
    ("Whch side is the lesion on?", "Which side is the lesion on?"),
    ("Are tbere any opacities?", "Are there any opacities?"),
    ("Is the apendix dilated?", "Is the appendix dilated?"),
    ("Does this film shqw a pleural effusion?", "Does this film show a pleural effusion?"),
    ("How manv ribs are visible?", "How many ribs are visible?"),
    ("Was contrast givne?", "Was contrast given?"),
    ("In what p1ane was this image taken?", "In what plane was this image taken?"),
)
NEEDED = 0.9  # of the damaged ones restored exactly; of the clean ones, all unchanged


def can_rewrite(model: MLLM) -> bool:
    """Whether free rewriting is safe with this model; otherwise it only weighs readings from the word list."""
    # Most models that cannot rewrite change the first clean question already; then nothing more is asked.
    if not all(_rewritten(model, clean) == clean for _, clean in DAMAGED):
        return False
    restored = sum(_rewritten(model, damaged) == clean for damaged, clean in DAMAGED)
    return restored >= NEEDED * len(DAMAGED)


def _rewritten(model: MLLM, question: str) -> str:
    return model.generate(REPAIR.format(question), None, 64).text
