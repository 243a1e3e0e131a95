"""Forty cases, answered: what a change that should change nothing is compared on.

    python recipes/forty_cases.py -o before.json     # then change the code
    python recipes/forty_cases.py -o after.json && cmp before.json after.json

Packaged pictures, clean and with noise of every severity, asked clean and damaged questions: answers, confidences,
verdicts and repairs, without times and versions.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from imc_lite import IMC, load_image
from imc_lite.bench.data import load_edition
from imc_lite.noise.image import IMAGE_KINDS, apply_to_image
from imc_lite.noise.text import TEXT_KINDS, apply_to_text

CASES, PICTURES = 40, 12
KINDS = (*IMAGE_KINDS, "jpeg", "ghosting")
QUESTIONS = (
    "What modality is this?",
    "Is teh heart enlargd?",
    "What body part is shown?",
    "In what plane was this image taken?",
    "Is there a rght pleural effusion?",
    "pt w/ sob, is there pna?",
    "How many white blood cells are visible?",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    output = parser.parse_args().output
    imc = IMC.from_pretrained()
    paths = sorted(case.path for case in load_edition())[::10][:PICTURES]
    rows = []
    for i in range(CASES):
        image, question = load_image(paths[i % len(paths)]), QUESTIONS[i % len(QUESTIONS)]
        if i % 4:
            image = apply_to_image(image, KINDS[i % len(KINDS)], 1 + i % 5, i)
        if i % 3 == 0:
            question = apply_to_text(question, TEXT_KINDS[i % len(TEXT_KINDS)], 1 + i % 5, i)
        row = imc.answer(image, question).to_dict()
        rows.append({k: v for k, v in row.items() if k not in ("timings_ms", "versions")})
    output.write_text(json.dumps(rows, ensure_ascii=False, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
