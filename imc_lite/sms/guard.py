"""The meaning guard: words that turn a question into another question.

Deterministic, behind the model: a known word of these classes never changes, and a damaged one is repaired into
one of them only when no second reading is in reach. No word is repaired whose damage leaves open which of two opposites
was meant.
"""

from __future__ import annotations

import re

from imc_lite.sms.channel import reach, slips
from imc_lite.sms.lexicon import Lexicon
from imc_lite.sms.opposites import NEAR, intact, opposites

CLASSES: dict[str, frozenset[str]] = {
    "side": frozenset(["left", "right", "bilateral", "bilaterally", "unilateral", "ipsilateral", "contralateral"]),
    "negation": frozenset(
        ["no", "not", "nor", "never", "none", "neither", "without", "absent", "absence", "cannot", "isn't", "aren't",
         "doesn't", "don't", "wasn't", "weren't", "hasn't", "haven't", "can't", "isnt", "arent", "doesnt", "dont",
         "didnt", "wasnt", "werent", "hasnt", "havent", "hadnt", "cant", "couldnt", "wont", "wouldnt", "shouldnt",
         "normal", "abnormal", "normally", "abnormally", "non", "un"]
    ),
    "position": frozenset(
        ["upper", "lower", "anterior", "posterior", "superior", "inferior", "lateral", "medial", "proximal", "distal",
         "above", "below", "front", "behind", "inside", "outside", "cranial", "caudal", "central", "peripheral",
         "dorsal", "ventral", "middle", "top", "bottom", "midline", "ap", "pa"]
    ),
    "comparison": frozenset(
        ["more", "less", "larger", "smaller", "bigger", "greater", "fewer", "most", "least", "than", "before", "after",
         "increased", "decreased", "increase", "decrease", "enlarged", "hyperdense", "hypodense", "hyperintense",
         "hypointense", "hyper", "hypo", "dilated", "collapsed", "higher", "high", "low", "elevated", "depressed"]
    ),
    "time": frozenset(
        ["acute", "chronic", "subacute", "old", "new", "prior", "previous", "current", "systolic", "diastolic", "early",
         "late", "arterial", "venous"]
    ),
    "growth": frozenset(
        ["benign", "malignant", "cancer", "cancerous", "carcinoma", "metastasis", "metastases", "metastatic", "tumor",
         "tumour"]
    ),
    "person": frozenset(["male", "female", "man", "woman", "boy", "girl", "child", "adult"]),
    "procedure": frozenset(
        ["transplant", "transplanted", "surgery", "surgical", "resection", "resected", "biopsy", "radiotherapy",
         "chemotherapy", "discharge", "discontinue"]
    ),
    "number": frozenset(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "first", "second",
         "third", "fourth", "fifth", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen",
         "eighteen", "nineteen", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety",
         "hundred", "thousand", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh", "twelfth", "single",
         "double", "multiple", "mm", "cm", "ml", "mg", "kg", "units"]
    ),
    "anatomy": frozenset(
        ["abdomen", "adrenal", "aorta", "appendix", "arm", "artery", "bladder", "bone", "bowel", "brain", "brainstem",
         "bronchus", "cecum", "cerebellum", "cerebrum", "chest", "clavicle", "colon", "cortex", "diaphragm",
         "duodenum", "esophagus", "eye", "femur", "gallbladder", "head", "heart", "hilum", "hip", "humerus", "ileum",
         "ilium", "intestine", "jejunum", "kidney", "kidneys", "larynx", "liver", "lobe", "lung", "lungs",
         "mediastinum", "muscle", "neck", "pancreas", "pelvis", "pericardium", "perineum", "peritoneum", "pharynx",
         "pleura", "prostate", "pylorus", "rectum", "rib", "ribs", "sinus", "skull", "spine", "spleen", "stomach",
         "thalamus", "thorax", "trachea", "ureter", "urethra", "uterus", "vein", "ventricle", "ventricles",
         "vertebra", "vertebrae", "ankle", "breast", "breasts", "cervix", "elbow", "finger", "foot", "knee",
         "ligament", "nerve", "ovaries", "ovary", "shoulder", "tendon", "testes", "testicle", "testis", "thymus",
         "thyroid", "tongue", "tonsil", "wrist", "ct", "mri", "mr"]
    ),
}  # fmt: skip
# Words that may be put back: without them the question is broken, with them it asks what it asked. Not "with", "no",
# "or", "from" and their like, which say something.
ASKING = ("what", "where", "which", "how", "why", "when", "who")
LITTLE = frozenset(
    ["a", "an", "the", "is", "are", "was", "were", "be", "been", "do", "does", "did", "of", "in", "on", "at", "to",
     "for", "this", "that", "these", "those", "there", "it", "its", "can", "has", "have", "had", *ASKING]
)  # fmt: skip
SHORT = 5  # letters of words that have no opposite with "ir-", "im-", "il-", "in-" or "dis-" before them
NEGATING = ("a", "an", "in", "im", "ir", "il", "un", "non", "dis")
_CLASS_OF = {word: name for name, words in CLASSES.items() for word in words}
# "12", "5.6cm", "T2", "L4-L5", "C3", "2nd": anything that may be a measure or a level.
_MEASURE = re.compile(r"(?i)^[a-z]{0,2}-?\d+(?:[.,:/x×-]?[a-z]?\d+)*\s*(?:%|mm|cm|ml|mg|kg|st|nd|rd|th|th?)?$")


def protected(word: str) -> str | None:
    """The class of a bare lower-case word that may not change ("side", "negation", …), or None."""
    if _MEASURE.match(word):
        return "number"
    return _CLASS_OF.get(word) or ("negation" if word.endswith("n't") else None)


def allowed(source: str, target: str, others: list[str], known: bool) -> bool:
    """Whether a word may be repaired.

    Args:
        source: the word as it stands, lower case; `known` if it is in the lexicon or a measure. A negation stays
            however it is written.
        target: what it would become; several words for shorthand.
        others: every other candidate as near to the source as the target.
    """
    kind = protected(source)
    if kind == "negation" or (known and kind):
        return False
    wanted = [w for w in target.split() if protected(w)]
    if not wanted:
        return True
    # An intact word never becomes a protected one, and a damaged one only if nothing else is as near.
    rivals = [other for other in others if not same_stem(other, target)]
    return not known and not any(protected(w) for rival in rivals for w in rival.split())


def same_words(question: str, other: str) -> bool:
    """Whether a question in other words says the same of all that is protected: these words alike, in their order."""
    first, second = (
        [w for w in re.findall(r"[\w'.,-]*\w", text.lower()) if protected(w)] for text in (question, other)
    )
    return first == second


def ambiguous(source: str, target: str, lexicon: Lexicon) -> bool:
    """Whether a damaged word could as well be one that says the opposite of `target`, or something else.

    It cannot where the letters that tell the two apart stand undamaged; otherwise the other word must be out of reach:
    no single slip away, and dearer by a margin.

    Args:
        source: the word as it stands, lower case.
        target: the word it would become, or several.
        lexicon: says which opposites exist.
    """
    # "avital" may be no slip of "vital": no list needs to hold it. But "aabdomen" is one.
    negated = any(source == prefix + target for prefix in NEGATING) and source[:1] != source[1:2]
    if negated and target not in LITTLE:
        return True
    forms = slips(source)
    # "rresectable", "ssimilar": no list needs to hold "irresectable".
    if source[:2] in ("ll", "mm", "nn", "rr", "ss") and source[1:] == target and len(target) > SHORT:
        return True
    for word in target.split():
        cost = reach(source, word)
        for other, margin in opposites(word, lexicon).items():
            far = reach(source, other)
            near = other in forms or far <= cost + NEAR
            if (near or far <= cost + margin) and not intact(source, word, other, near):
                return True
    return False


def same_stem(word: str, other: str) -> bool:
    """Rib and ribs are no two readings."""
    first, second = (w.removesuffix("s").removesuffix("e") for w in (word, other))
    return first == second
