"""Pairs of words that say opposite or different things and are spelt nearly alike.

A damaged word that could be either is left as it is, however much likelier the model finds one of them.
"""

from __future__ import annotations

from imc_lite.sms.lexicon import Lexicon

# Any prefix of a group may stand for any other; "" is none at all ("symptomatic", "asymptomatic").
_PREFIXES = (
    ("ab", "ad"), ("hyper", "hypo", "iso", "normo", "eu"), ("intra", "inter", "extra", "infra", "supra", "sub"),
    ("uni", "bi", "tri", "multi", "mono", "poly", "oligo"), ("ante", "anti", "post", "pre", "retro"),
    ("antero", "postero"), ("ventro", "dorso"), ("supero", "infero"), ("medio", "latero"),
    ("endo", "exo", "ecto", "epi"), ("dextro", "levo"), ("ipsi", "contra", "bi", "uni"), ("homo", "hetero"),
    ("macro", "micro", "mega"),
    ("brady", "tachy"), ("over", "under"), ("super", "sub"), ("in", "ex"), ("in", "out"), ("af", "ef"),
    ("hemo", "hydro", "pneumo", "pyo", "chylo"), ("peri", "para", "pre", "per"), ("nephr", "neur"), ("myelo", "myo"),
    ("a", ""), ("an", ""), ("ab", ""), ("in", ""), ("im", ""), ("ir", ""), ("un", ""), ("non", ""), ("dis", ""),
    ("mal", ""), ("de", ""), ("fe", ""), ("sub", ""), ("semi", ""), ("pre", ""), ("post", ""), ("re", ""),
    ("en", "ex"), ("per", "re"), ("pro", "re"),
)  # fmt: skip
_SUFFIXES = (
    ("ectomy", "ostomy", "otomy", "oscopy", "plasty"), ("itis", "osis", "oma"), ("lytic", "blastic"),
    ("philia", "penia", "cytosis"), ("less", "ful"), ("phagia", "phasia", "plasia"), ("phagic", "phasic", "plastic"),
    ("emia", "uria"), ("gram", "graphy"), ("plegia", "paresis"), ("ocele", "oma"),
)  # fmt: skip
_GROUPS = (
    "ilium ileum hilum", "iliac ileal hilar", "ilia ilea hila", "ureter urethra", "ureters urethras",
    "ureteral urethral ureteric", "peroneal perineal peritoneal", "perineum peritoneum", "male female",
    "males females", "man woman", "boy girl", "with without", "left right", "benign malignant",
    "acute chronic subacute", "proximal distal", "afferent efferent", "systolic diastolic", "systole diastole",
    "anterior posterior interior", "superior inferior exterior", "medial lateral median", "upper lower",
    "above below", "before after", "more less", "arterial venous atrial", "artery vein", "arteries veins",
    "atrium antrum", "tibia fibula", "tibial fibular", "radius ulna", "radial ulnar", "carpal tarsal",
    "metacarpal metatarsal", "dorsal ventral volar", "cranial caudal", "palmar plantar", "flexion extension",
    "supination pronation", "inversion eversion", "varus valgus", "vara valga", "varum valgum",
    "inspiration expiration", "inspiratory expiratory", "positive negative", "present absent", "presence absence",
    "high low", "thick thin", "transudate exudate", "transudative exudative", "open closed", "most least",
    "malleus malleolus", "humeral humoral", "facial fascial", "vesical vesicle", "uterine ureteric urethral",
    "uterus ureter", "uterus ureters", "uteri ureter", "uteri ureters", "hyperkalemia hypercalcemia",
    "hypokalemia hypocalcemia", "increase decrease",
    "increased decreased", "increasing decreasing", "larger smaller", "bigger smaller", "mucus mucous",
    "ascending descending", "adduct abduct", "adducted abducted", "abductor adductor", "abductors adductors",
    "jejunum ileum", "cervix cervical", "sensory motor", "infection injection", "ingestion injection",
    "prednisone prednisolone", "diaphysis dialysis", "carotid parotid",
    "focal fecal facial fetal", "stone stoma", "stones stomas", "hypoxia hypoxemia", "nervous nevus venous",
    "myeloma myoma", "lipoma lymphoma", "osteoma ostoma", "papilla patella", "palpation palpitation", "aural oral",
)  # fmt: skip
MARGIN, MARGIN_OF_A_PAIR = 3.5, 4.0  # nats, of `imc_lite.sms.channel`
NEAR = 1.0  # nats that a word may lie above another and still be as near
# Other things, of which one is far seldomer meant: they are in the way only where they are as near.
_ALIKE = (
    "atypical apical typical", "contusion confusion", "hematoma hepatoma", "inflammation inflation",
    "arthritis arteritis", "hypoxia hyperoxia", "tongue tone", "node nodule", "nodes nodules",
    "biliary ciliary miliary", "isoechoic ischemic",
)  # fmt: skip
_PAIRS: dict[str, dict[str, float]] = {}
for _groups, _margin in ((_ALIKE, NEAR), (_GROUPS, MARGIN_OF_A_PAIR)):
    for _group in _groups:
        for _word in _group.split():
            _PAIRS.setdefault(_word, {}).update((w, _margin) for w in _group.split() if w != _word)


def opposites(word: str, lexicon: Lexicon) -> dict[str, float]:
    """Words that a lower-case word must not be taken for, and the cost by which each has to lie above it."""
    found: set[str] = set()
    bare: set[str] = set()
    for group in _PREFIXES:
        for prefix in group:
            rest = word.removeprefix(prefix)
            if len(rest) + len(prefix) == len(word) and len(rest) > (5 if "" in group else 3):
                (bare if "" in group else found).update(other + rest for other in group if other != prefix)
    for group in _SUFFIXES:
        for suffix in group:
            if word.endswith(suffix) and len(word) > len(suffix) + 2:
                found |= {word.removesuffix(suffix) + other for other in group if other != suffix}
    # Nearly every word has a "non-" of its own: such ones must stand in a list.
    formed = {other for other in found if lexicon.known(other)} | {other for other in bare if lexicon.listed(other)}
    pairs = _PAIRS.get(word, {})
    return pairs | {other: max(MARGIN, pairs.get(other, 0.0)) for other in formed - {word}}


def intact(seen: str, meant: str, other: str, near: bool = False) -> bool:
    """Whether the letters that tell `meant` from `other`, and one beside them, stand undamaged in `seen`.

    Where `other` only has more letters than `meant`, none tells. If it is as `near` as `meant`, letters have to stand
    that are no part of it either: "rregular" may be what is left of "irregular", "witho" of "without", "inflmation"
    of "inflammation".
    """
    begin, alike = _common(meant, other), _common(meant[::-1], other[::-1])
    end = min(alike, min(len(meant), len(other)) - begin)
    stop = len(meant) - end
    if not near and begin < len(meant):
        return seen.startswith(meant[: stop + 1]) or (begin > 0 and seen.endswith(meant[begin - 1 :]))
    head = begin < len(meant) and seen.startswith(meant[: max(stop + 1, 2)])
    start = max(0, min(begin - 1, len(meant) - 2, len(meant) - 1 - alike))
    return head or (begin > 0 and seen.endswith(meant[start:]))


def _common(a: str, b: str) -> int:
    """How many letters two words begin with alike."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
