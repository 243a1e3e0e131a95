"""What is no word and no misspelling of one: units, isotopes, physics, codes, addresses."""

from __future__ import annotations

import re

UNITS = frozenset(
    [
    "a", "ah", "au", "bpm", "bq", "c", "cc", "cd", "cgy", "ci", "cm", "cmh2o", "cps", "db", "dl", "dpi", "dpt",
    "ev", "f", "fl", "fps", "ft", "g", "gbq", "ghz", "gy", "h", "hg", "hr", "hrs", "hu", "hz", "in", "iu", "j",
    "k", "kbq", "kda", "kev", "kg", "khz", "km", "kpa", "kv", "kvp", "l", "lb", "lbs", "lp", "m", "ma", "mas",
    "mbq", "mcg", "mci", "meq", "mev", "mg", "mgy", "mhz", "min", "mins", "miu", "mj", "ml", "mm", "mmhg",
    "mmol", "mo", "mol", "mos", "mosm", "mpa", "ms", "msv", "mt", "mv", "mw", "nci", "ng", "nl", "nm", "nmol",
    "ohm", "oz", "pa", "pg", "ph", "pl", "pmol", "ppb", "ppm", "px", "rpm", "s", "sec", "secs", "st", "suv",
    "sv", "t", "u", "ug", "ui", "um", "us", "usv", "v", "w", "wk", "wks", "yo", "yr", "yrs",
    ]
)  # fmt: skip
# "kVp", "FiO2", "SUVmax"; a lone capital I in a word is sooner a misread l.
_MIXED = re.compile(r"[a-z\d].*[A-HJ-Z]|^[A-Z]{2,}[a-z]")
# "99m", "T12", "S1Q3T3", "SUV5"; not "1s" and its like, which are little words whose first letter was misread.
_CODE = re.compile(
    r"\d[A-Za-z]{0,2}\d|^(?!1[sn]$|0[fn]$)\d+[A-Za-z]{1,2}\d*$|^(?:[A-Za-z]{1,2}|[A-Z]{3,4})\d+[A-Za-z]?$"
)
_ADDRESS = re.compile(r"(?i)://|www\.|@|\.(?:com|org|net|edu|gov|html?|php|dcm|jpe?g|png|tiff?|pdf)\b|[\\_]|\w/\w+/\w")
LONGEST = 40  # letters; no word of the lists has as many


def is_symbol(core: str, before: str, after: str) -> bool:
    """Whether a run of letters and digits is a unit, an isotope, a formula, a code, or in a script of its own.

    Args:
        core: the run as it stands, letter case and all.
        before: the run it follows, with what stands between them, at least.
        after: what stands between it and the next run, and that run.
    """
    if not core.isascii() or len(core) > LONGEST or _MIXED.search(core) or _CODE.search(core):
        return True
    if core.lower() in UNITS and behind_number(before):
        return True
    # An element before its mass number ("Tc-99m"), a sequence or level before its own ("PD-FS", "C1-C2").
    joined = re.match(r"[-‐‑–+/]?\d", after) or re.search(r"\d[A-Za-z]?[-‐‑–+/]$", before)
    return len(core) <= 3 and joined is not None


def behind_number(before: str) -> bool:
    """Whether what stands before a word is a number, with nothing between them that ends a sentence."""
    return re.search(r"\d[^\w?.!;]*$", before) is not None


def is_address(part: str) -> bool:
    """Whether what stands between two spaces is an address, a path, a file or an identifier: nothing in it is read."""
    bare = part.strip("?.,;:!()[]{}\"'")
    mixed = sum(c.isdigit() for c in bare) >= 3 and sum(c.isalpha() for c in bare) >= 3
    return len(bare) > LONGEST or bool(_ADDRESS.search(bare)) or mixed
