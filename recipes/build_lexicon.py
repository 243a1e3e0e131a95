"""The words the question repair knows: `python recipes/build_lexicon.py --data DATA -o imc_lite/assets/words.txt`.

One word a line, in two parts parted by an empty line: words of the training questions and answers (VQA-RAD, CC0;
SLAKE, CC BY 4.0); then terms of radiology (`radiology_terms.txt`, written for this project) and general English
(symspellpy's frequency list, MIT), most frequent first.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from importlib import resources
from pathlib import Path


def words(text: str) -> list[str]:
    return re.findall(r"(?<![\w'])[a-z]+(?:'[a-z]+)?(?!\w)", text.lower())


def near(word: str, known: set[str]) -> bool:
    """Whether one slip of a key makes this word out of a known one."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    for i in range(len(word) + 1):
        head, tail = word[:i], word[i:]
        forms = {head + tail[1:], head + tail[1:2] + tail[:1] + tail[2:]}
        forms |= {head + c + rest for c in letters for rest in (tail, tail[1:])}
        if forms & (known - {word}):
            return True
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    counts: Counter[str] = Counter()
    for row in json.loads((args.data / "slake_text/train.json").read_text()):
        counts.update(words(row["question"]) + words(str(row["answer"])))
    for row in json.loads((args.data / "vqa_rad/qa.json").read_text()):
        if row["split"] == "train":
            counts.update(words(row["question"]) + words(row["answer"]))
    listed = (resources.files("symspellpy") / "frequency_dictionary_en_82_765.txt").read_text(encoding="utf-8-sig")
    english = [line.split()[0] for line in listed.splitlines()]
    english_set, sure = set(english), {w for w, c in counts.items() if c >= 3}
    # Clinicians mistype too: a rare word one slip away from a sure one is taken for such a slip.
    domain = [
        w
        for w, c in counts.most_common()
        if len(w) > 1 and (w in english_set or c >= 3 or not near(w, english_set | sure))
    ]
    # The terms are common here however rare they are elsewhere.
    terms = Path(__file__).with_name("radiology_terms.txt").read_text(encoding="utf-8").split()
    general = [w for w in dict.fromkeys((*terms, *english)) if w not in set(domain) and (len(w) > 1 or w in "ai")]
    args.out.write_text("\n".join([*domain, "", *general]) + "\n", encoding="utf-8")
    print(f"{len(domain)} words of the domain, {len(general)} of general English")


if __name__ == "__main__":
    main()
