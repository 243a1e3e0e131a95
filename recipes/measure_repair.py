"""How well damaged questions are repaired, beside two spell checkers with the same words.

    python recipes/measure_repair.py --data DATA --bundle BUNDLE -o recipes/results/repair.json

Questions that were not trained on: VQA-RAD's test questions and SLAKE's validation questions that differ from every
training question. Counted in words: damaged ones restored exactly (case aside), intact ones broken; and whole clean
questions left alone. The meaning guard is checked on every edit made in the run. A question that holds a word which
is in no list counts as clean here even where its writer mistyped it; those changes are listed. "Filled" counts the
questions that got lost words back, "unfinished" those whose work was spent before all of it was looked at.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from data import repair_questions
from tqdm import tqdm

from imc_lite.bench.data import load_cases
from imc_lite.models.default.onnx import OrtMLLM
from imc_lite.noise.edits import Damaged
from imc_lite.noise.text import damage_text
from imc_lite.sms import guard
from imc_lite.sms.agents import Repaired, repair, repair_words
from imc_lite.sms.assessor import assess
from imc_lite.sms.lexicon import Lexicon, default_lexicon
from imc_lite.sms.metered import Metered
from imc_lite.sms.question import is_english

TOOLS = ("imc-lite", "symspellpy", "pyspellchecker")
KINDS, SEVERITIES = ("typo", "ocr", "shorthand"), (2, 4)


def questions(data: Path) -> list[str]:
    trained = set(repair_questions(data, load_cases(data, "train")))
    radiology = {q["question"] for c in load_cases(data, "test") for q in c.questions}
    slake = {" ".join(r["question"].split()) for r in json.loads((data / "slake_text/validate.json").read_text())}
    return sorted((radiology | slake) - trained)


def aligned(clean: str, damaged: Damaged) -> list[tuple[str, str, bool]]:
    """(word as it stands, word as it was, damaged?) for each word of the damaged text; dropped words have none."""
    words, out, at = clean.split(), [], 0
    for edit in damaged.edits:
        out += [(w, w, False) for w in words[at : edit.start]]
        out += [(edit.damaged, edit.clean, True)] if edit.damaged else []
        at = edit.stop
    return out + [(w, w, False) for w in words[at:]]


def frequency(lexicon: Lexicon, word: str) -> int:
    """Zipf's law in each list; a word of the domain counts ten times a general one of its rank, a rare one hardly."""
    return (10_000_000 if word in lexicon.domain else 1_000_000) // (lexicon.rank.get(word, 999_999) + 1)


def with_symspell(lexicon: Lexicon) -> Callable[[str], list[str]]:
    """symspellpy, the same words, at most two edits, its own ranking."""
    from symspellpy import SymSpell, Verbosity

    checker = SymSpell(max_dictionary_edit_distance=2)
    for word in (*lexicon.rank, *lexicon.rare):
        checker.create_dictionary_entry(word, frequency(lexicon, word))

    def best(word: str) -> str:
        found = checker.lookup(word, Verbosity.TOP, max_edit_distance=2)
        return found[0].term if found else word

    return lambda text: [_bare(word, best) for word in text.split(" ")]


def with_pyspellchecker(lexicon: Lexicon) -> Callable[[str], list[str]]:
    """pyspellchecker, the same words, its own ranking."""
    from spellchecker import SpellChecker

    checker = SpellChecker(language=None)
    # One call: each of its calls counts the whole list again.
    checker.word_frequency.load_json({word: frequency(lexicon, word) for word in (*lexicon.rank, *lexicon.rare)})
    return lambda text: [_bare(word, lambda w: checker.correction(w) or w) for word in text.split(" ")]


def _bare(text: str, correct: Callable[[str], str]) -> str:
    """A checker's word for each run of letters; punctuation, numbers and capitals as they are."""

    def mend(match: re.Match) -> str:
        word = match.group()
        found = correct(word.lower())
        return found[:1].upper() + found[1:] if word[:1].isupper() else found

    return re.sub(r"[^\W\d_][\w']*", lambda m: m.group() if m.group().isupper() else mend(m), text)


def mended(model: OrtMLLM, text: str, lexicon: Lexicon) -> Repaired:
    """The repair of a question, its words still one for one as they were given."""
    if not is_english(text, lexicon):
        return Repaired(text.split(" "), text.split(" "), [], [], 0.0, spent=False)
    return repair_words(Metered(model), text, lexicon)


def judge(job: tuple) -> dict:
    """One tool over one condition; what a run that was cut off has finished stands."""
    args, tool, kind, severity = job
    target = args.out.with_suffix(".parts") / f"{tool} {kind} {severity}.json"
    if target.exists():
        return json.loads(target.read_text())
    lexicon = default_lexicon()
    model = OrtMLLM(args.bundle)
    checker = {"symspellpy": with_symspell, "pyspellchecker": with_pyspellchecker}.get(tool, lambda _: None)(lexicon)
    counted = (
        "questions",
        "damaged",
        "restored",
        "intact",
        "broken",
        "unchanged",
        "filled",
        "violations",
        "unfinished",
    )
    count = dict.fromkeys(counted, 0)
    changes = []
    for i, clean in enumerate(tqdm(args.questions, desc=f"{tool} {kind} {severity}")):
        damaged = damage_text(clean, kind, severity, args.seed + i) if kind != "clean" else Damaged(clean, ())
        if kind != "clean" and not damaged.edits:
            continue
        if checker is None:
            found = mended(model, damaged.text, lexicon)
            words = found.words
            count["filled"] += any(e.reason == "drop" for e in found.edits)
            count["unfinished"] += found.spent
            count["violations"] += sum(
                e.reason not in ("shorthand", "drop")
                and lexicon.known(e.source.lower())
                and guard.protected(e.source.lower()) is not None
                for e in found.edits
            )
        else:
            words = checker(damaged.text)
        count["questions"] += 1
        count["unchanged"] += " ".join(found.whole if checker is None else words) == damaged.text
        for got, (given, wanted, hit) in zip(words, aligned(clean, damaged), strict=True):
            if hit:
                count["damaged"] += 1
                count["restored"] += got.lower() == wanted.lower()
            else:
                count["intact"] += 1
                count["broken"] += got != given
                if got != given and kind == "clean":
                    changes.append([given, got])
    row = {"tool": tool, "kind": kind, "severity": severity, **count}
    if kind == "clean" and tool == "imc-lite":
        row["changes"] = changes
    part = target.with_suffix(".part")
    part.write_text(json.dumps(row))
    part.rename(target)
    return row


def cost(args: argparse.Namespace) -> dict[str, float]:
    """Medians over 40 questions, in processor seconds: a repair at severity 2 and at 4; and assessing a clean question
    over one prefill of it.
    """
    model, found = OrtMLLM(args.bundle), {}
    model.score(args.questions[0], ["yes"])
    for severity in SEVERITIES:
        seconds = []
        for i, text in enumerate(args.questions[::11][:40]):
            damaged = damage_text(text, "typo", severity, args.seed + i).text
            began = time.process_time()
            repair(model, damaged)
            seconds.append(time.process_time() - began)
        found[f"repair_s_severity_{severity}"] = round(float(np.median(seconds)), 3)
    ratios = []
    for text in args.questions[:50]:
        began = time.process_time()
        model.score(text, ["yes"])
        middle = time.process_time()
        assess(Metered(model), text)
        ratios.append((time.process_time() - middle) / (middle - began))
    return found | {"assess_over_prefill": round(float(np.median(ratios[10:])), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--tools", nargs="+", default=TOOLS, choices=TOOLS, help="the rows of the others stand")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    args.questions = questions(args.data)
    args.out.with_suffix(".parts").mkdir(parents=True, exist_ok=True)
    noises = [("clean", 0), *((k, s) for k in KINDS for s in SEVERITIES)]
    jobs = [(args, tool, *noise) for tool in args.tools for noise in noises]
    with multiprocessing.Pool(args.workers) as pool:
        rows = pool.map(judge, jobs, chunksize=1)
    kept = json.loads(args.out.read_text())["rows"] if args.out.exists() else []
    rows += [row for row in kept if row["tool"] not in args.tools]
    command = "python recipes/measure_repair.py --data DATA --bundle BUNDLE -o recipes/results/repair.json"
    facts = {"command": command, "seed": args.seed, "questions": len(args.questions)}
    facts["cost"] = cost(args)
    args.out.write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
