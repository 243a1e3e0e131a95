"""Questions that nobody would ask, in numbers: nothing may fail, change what the guard protects, or take long.

    python recipes/fuzz_questions.py --bundle BUNDLE -o recipes/results/questions.json

First without the model: a question is checked, parted and put together, its doubtful words and their readings found,
and the guard asked of each. Then the whole of a repair, with the model. Seeded; seconds are of one process' CPU time.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import time
from collections import Counter
from pathlib import Path

from imc_lite.errors import ImcError
from imc_lite.models.default.onnx import OrtMLLM
from imc_lite.noise.edits import TEXT_NOISE
from imc_lite.noise.text import apply_to_text as damage
from imc_lite.sms import guard
from imc_lite.sms.agents import repair
from imc_lite.sms.assessor import is_name, lone_letters, strange
from imc_lite.sms.confusions import doubtful
from imc_lite.sms.lexicon import default_lexicon
from imc_lite.sms.metered import BUDGET
from imc_lite.sms.proposers import propose
from imc_lite.sms.question import MAX_QUESTION, check_question, is_english
from imc_lite.sms.text import join, split

SEEDS = (
    "Is the heart enlarged?", "Is there a left pleural effusion without pneumothorax?", "What modality was used?",
    "Where is the lesion?", "Is the ureter or the urethra dilated?", "pt w/ hx of CA, any mets?", "Any fx?",
    "Is there a 5.6 cm mass at T12, or L4-L5?", "How many white blood cells are there?", "Is it hypodense?",
    "Is the arm in abduction?", "Is this a T2 weighted image of the brain?", "No acute abnormality, right?",
    "Is Dr Patel's read correct?", "Is this Tc-99m or F-18 FDG?", "Was 50 µm slice thickness used at 120 kVp?",
    "IS THERE A FRACTURE OF THE RIGHT FEMUR?", "Is there haemopneumothorax on the left?",
)  # fmt: skip
STRANGE = (
    "é", "ß", "ı", "İ", "\u0301", "\u200d", "\u200b", "\u202e", "\ufeff", "\u00ad", "\U0001f600", "骨",
    "هل", "ז", "Ж", "½", "µ", "Å", "°", "\x00", "\x07", "\t", "\n", "\r", "\x85", "\u2028", "\ud800",
    "\udfff", "|", "\\", "<|im_end|>", "{}", "%s", "'", '"', "`", "--", "&", "w/", "w/o", "re:", "exam.", "&&",
    "_", "__", "/", "//", "1", "0", "5.6", "99m", "L4", "T2", "no", "not", "left", "µm",
    "\U0001f469\u200d\u2695\ufe0f",
)  # fmt: skip
LONG = (
    "https://example.org/a/b?c=d&e=f", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "a" * 64,
    "1.2.840.113619.2.55.3.604688119.969.1268071029.320", "C:\\scans\\image_01.dcm", "x@example.org", "lession" * 9,
    "pneumonoultramicroscopicsilicovolcanoconiosis", "-" * 80, "e\u0301" * 40, "\U0001f600" * 30, "ab" * 150,
    "0123456789abcdef" * 4,
)  # fmt: skip


def question(rng: random.Random) -> str:
    """A seed, damaged; or words at random, strange characters, long tokens, or all of these."""
    way = rng.random()
    if way < 0.55:
        kind = rng.choice(TEXT_NOISE.names())
        text = damage(rng.choice(SEEDS), kind, rng.randint(1, 5), rng.randrange(2**31))
    elif way < 0.7:
        text = " ".join(rng.choice(rng.choice(SEEDS).split(" ")) for _ in range(rng.randint(1, 12)))
    elif way < 0.8:
        text = "".join(rng.choice("abcdefghijklmnopqrstuvwxyz    '-/?.015") for _ in range(rng.randint(0, 40)))
    else:
        text = rng.choice(SEEDS)
    for _ in range(rng.choice((0, 0, 1, 1, 2, 5))):
        at = rng.randint(0, len(text))
        text = text[:at] + rng.choice(STRANGE) + text[at + rng.randint(0, 2) :]
    if rng.random() < 0.05:
        words = text.split(" ")
        words.insert(rng.randint(0, len(words)), rng.choice(LONG))
        text = " ".join(words)
    if rng.random() < 0.01:
        text = (text + " ") * rng.randint(2, 90)
    return text.upper() if rng.random() < 0.05 else text


def without_model(job: tuple[int, int]) -> tuple[Counter[str], float, str]:
    """Counts, and the seconds and length of the slowest question."""
    seed, count = job
    rng, lexicon, found = random.Random(seed), default_lexicon(), Counter[str]()
    worst, slowest = 0.0, ""
    for _ in range(count):
        given = question(rng)
        began = time.process_time()
        found["questions"] += 1
        try:
            text = check_question(given)
        except ImcError as error:
            assert len(str(error)) < 200
            found["refused"] += 1
            continue
        assert text == check_question(text)
        words, starts = split(text)
        assert join(words) == text and len(starts) == len(text.split(" "))
        if not is_english(text, lexicon):
            found["not English"] += 1
            continue
        lone_letters(words, starts), doubtful(words)
        for i in strange(words, starts, lexicon):
            found["doubted words"] += 1
            found["names"] += is_name(words, i)
            source = words[i].core.lower()
            readings = propose(source, lexicon)
            found["readings"] += len(readings)
            known = lexicon.known(source)
            for reading in readings:
                assert reading.text != source and reading.cost > 0
                rivals = [c.text for c in readings if c.slip <= reading.slip + 1 and c is not reading]
                allowed = guard.allowed(source, reading.text, rivals, known)
                assert not (allowed and known and guard.protected(source))
            if readings:
                found["ambiguous words"] += guard.ambiguous(source, readings[0].text, lexicon)
        taken = time.process_time() - began
        if taken > worst:
            worst, slowest = taken, text
    return found, worst, slowest[:80]


def with_model(bundle: Path, count: int, seed: int) -> dict:
    """Counts, worst seconds and worst work of whole repairs; every seed and long token is among them."""
    model, rng, found = OrtMLLM(bundle), random.Random(seed), Counter[str]()
    asked = [*SEEDS, *LONG, *(f"Is there a lession near {token} in the lung?" for token in LONG)]
    asked += ["e" * MAX_QUESTION, "lession " * 200, "Is teh hert " * 100, "history of cough and fever, " * 17]
    asked += [question(rng) for _ in range(count - len(asked))]
    seconds: list[tuple[float, str]] = []
    model.score("a", ["b"])
    for given in asked:
        try:
            text = check_question(given)
        except ImcError:
            found["refused"] += 1
            continue
        began = time.process_time()
        report = repair(model, text)
        seconds.append((time.process_time() - began, text[:80]))
        found["repaired"] += bool(report.edits)
        found["not checked in full"] += not report.checked
        found["with a word named"] += bool(report.unsure)
        for edit in report.edits:
            assert edit.reason in ("shorthand", "drop") or guard.protected(edit.source.lower()) is None, edit
        assert report.edits or report.repaired == text
    seconds.sort()
    return {
        "questions": len(asked),
        **found,
        "budget_tokens": BUDGET,
        "median_s": round(seconds[len(seconds) // 2][0], 3),
        "worst_s": round(seconds[-1][0], 3),
        "worst": seconds[-1][1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--count", type=int, default=260_000)
    parser.add_argument("--repairs", type=int, default=320)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    share = 2_000
    jobs = [(args.seed + i, share) for i in range(-(-args.count // share))]
    total, worst = Counter[str](), (0.0, "")
    with multiprocessing.Pool(args.workers) as pool:
        for found, seconds, text in pool.imap_unordered(without_model, jobs):
            total += found
            worst = max(worst, (seconds, text))
    alone = {**dict(sorted(total.items())), "worst_s": round(worst[0], 3), "worst": worst[1]}
    whole = with_model(args.bundle, args.repairs, args.seed)
    command = "python recipes/fuzz_questions.py --bundle BUNDLE -o recipes/results/questions.json"
    row = {"command": command, "seed": args.seed, "without_model": alone, "with_model": whole}
    args.out.write_text(json.dumps(row, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
