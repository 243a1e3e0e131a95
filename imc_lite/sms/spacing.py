"""A repaired question put back into the text it came from, with that text's line breaks and spaces."""

from __future__ import annotations

import re
from difflib import SequenceMatcher

from imc_lite.sms.question import check_question, normal_form

SPACE = re.compile(r"([\s\x00-\x1f\x7f-\x9f]+)")  # what `check_question` takes for a space


def keep_spacing(text: str, repaired: str) -> str:
    """`text` with the words of `repaired` where these differ, and every other character as it is.

    Args:
        text: as it was written.
        repaired: what became of `check_question(text)`.
    """
    # Words stand at even places, what is between them at odd ones.
    parts = SPACE.split(text)
    start = 2 if parts[0] == "" else 0
    old, gaps = parts[start::2], [*parts[start + 1 :: 2], ""]
    if old[-1] == "":
        old.pop()
        gaps.pop()
    new = repaired.split(" ")
    found = [text[:0] if start == 0 else parts[1]]
    same = SequenceMatcher(None, [normal_form(word) for word in old], new, autojunk=False)
    for what, i, i_end, j, j_end in same.get_opcodes():
        words = old[i:i_end] if what == "equal" else new[j:j_end]
        if what == "insert":
            found += [f"{word} " for word in words] if i < len(old) else [f" {word}" for word in words]
        elif len(words) == i_end - i:
            found += [word + gap for word, gap in zip(words, gaps[i:i_end], strict=True)]
        else:
            found.append(" ".join(words) + (gaps[i_end - 1] if words else ""))
    whole = "".join(found)
    return whole if check_question(whole) == repaired else repaired
