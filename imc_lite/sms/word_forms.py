"""Words that no list needs to hold: British spellings, and medical words put together from known parts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

# British, American. Within a word, one place or several.
_SPELLINGS = (
    ("haem", "hem"), ("aem", "em"), ("paed", "ped"), ("gynaec", "gynec"), ("anaes", "anes"), ("aeti", "eti"),
    ("caec", "cec"), ("faec", "fec"), ("naev", "nev"), ("taen", "ten"), ("aen", "en"), ("oede", "ede"),
    ("oeso", "eso"), ("foet", "fet"), ("oest", "est"), ("rrhoe", "rrhe"), ("noe", "ne"), ("coel", "cel"),
    ("moeb", "meb"), ("leuc", "leuk"), ("sulph", "sulf"), ("fibre", "fiber"), ("tumour", "tumor"), ("colour", "color"),
    ("calibre", "caliber"), ("manoeuvr", "maneuver"), ("orthopaed", "orthoped"),
)  # fmt: skip
_ENDINGS = (
    (re.compile(r"is(e|es|ed|er|ers|ing|able|ation|ations)$"), r"iz\1"),
    (re.compile(r"ys(e|es|ed|er|ers|ing)$"), r"yz\1"),
    (re.compile(r"our(s|ed|ing|able|less)?$"), r"or\1"),
    (re.compile(r"tre(s|d)?$"), r"ter\1"),
    (re.compile(r"ell(ed|ing|er|ers)$"), r"el\1"),
)

_PREFIXES = [
    "non", "pre", "post", "peri", "para", "intra", "inter", "extra", "infra", "supra", "sub", "retro", "trans",
    "hyper", "hypo", "hemi", "semi", "bi", "tri", "quadri", "uni", "multi", "poly", "mono", "oligo", "iso", "micro",
    "macro", "mega", "mini", "neo", "pseudo", "anti", "auto", "endo", "exo", "ecto", "epi", "meso", "meta", "juxta",
    "circum", "contra", "dys", "hetero", "homo", "ultra", "over", "under", "mid", "super", "tele", "abdomino",
    "adeno", "adreno", "aero", "angio", "antero", "aorto", "arterio", "arthro", "atrio", "broncho", "bronchio",
    "cardio", "carpo", "cephalo", "cerebello", "cerebro", "cervico", "chemo", "cholangio", "chole", "cholecysto",
    "choledocho", "chondro", "chorio", "colo", "colpo", "coraco", "costo", "cranio", "cryo", "cysto", "cyto",
    "dacryo", "dermato", "dermo", "dextro", "dorso", "duodeno", "electro", "encephalo", "entero", "epididymo",
    "erythro", "esophago", "ethmoido", "fascio", "femoro", "fibro", "fibulo", "fronto", "ganglio", "gastro",
    "genito", "gingivo", "gleno", "glosso", "glomerulo", "glyco", "gyneco", "hemangio", "hemato", "hemo", "hepato",
    "histio", "histo", "humero", "hydro", "hystero", "ileo", "ilio", "immuno", "ischio", "jejuno", "karyo",
    "kerato", "kypho", "labio", "laparo", "laryngo", "latero", "leio", "leuko", "levo", "lipo", "litho", "lumbo",
    "lymphangio", "lympho", "mammo", "mandibulo", "masto", "maxillo", "medio", "melano", "meningo", "menisco",
    "mesentero", "metacarpo", "metatarso", "myco", "myelo", "myo", "myocardio", "myxo", "naso", "necro", "nephro",
    "neuro", "occipito", "oculo", "odonto", "omphalo", "onco", "oophoro", "ophthalmo", "orbito", "orchi", "oro",
    "ortho", "osteo", "oto", "palato", "pancreatico", "pancreato", "parieto", "patello", "pelvi", "pericardio",
    "perineo", "peritoneo", "petro", "pharyngo", "phlebo", "photo", "phreno", "pleuro", "pneumo", "pneumono",
    "postero", "procto", "prostato", "pterygo", "pulmo", "pyelo", "pyo", "pyloro", "radiculo", "radio", "recto",
    "reno", "reticulo", "retino", "rhabdo", "rhino", "sacro", "salpingo", "sarco", "scapho", "scapulo", "sclero",
    "septo", "sialo", "sigmoido", "sino", "spermato", "spheno", "spino", "spleno", "spondylo", "squamo", "steato",
    "sterno", "stomato", "stylo", "syndesmo", "synovio", "talo", "tarso", "temporo", "teno", "thalamo", "thoraco",
    "thrombo", "thymo", "thyro", "tibio", "tracheo", "tricho", "tympano", "ulno", "uretero", "urethro", "uro",
    "utero", "uveo", "vagino", "valvulo", "vaso", "veno", "ventriculo", "ventro", "vertebro", "vesico", "vestibulo",
    "viscero", "vitreo", "xantho", "zygomatico",
]  # fmt: skip
_SUFFIXES = frozenset(
    [
    "itis", "itides", "osis", "oses", "oma", "omas", "omata", "omatous", "ectomy", "ectomies", "ostomy", "ostomies",
    "otomy", "otomies", "stomy", "stomies", "tomy", "tomies", "plasty", "plasties", "pexy", "rrhaphy", "rrhexis",
    "scopy", "scopic", "scope", "graphy", "graphic", "gram", "grams", "pathy", "pathic", "pathies", "megaly",
    "malacia", "lysis", "lytic", "penia", "penic", "philia", "philic", "plegia", "plegic", "paresis", "ptosis",
    "ptysis", "rrhage", "rrhea", "rrhagia", "rrhagic", "sclerosis", "sclerotic", "spasm", "stasis", "static",
    "stenosis", "stenotic", "therapy", "trophy", "trophic", "tropic", "uria", "uric", "emia", "emic", "genic",
    "genesis", "genous", "cele", "celes", "cyte", "cytes", "cytic", "cytosis", "blast", "blasts", "blastic",
    "blastoma", "carcinoma", "sarcoma", "lith", "liths", "lithiasis", "metry", "metric", "meter", "algia", "algic",
    "dynia", "centesis", "desis", "ectasia", "ectasis", "ectatic", "logy", "logic", "logical", "logist", "logists",
    "oid", "phage", "phagia", "phagy", "plasia", "plastic", "pnea", "poiesis", "poietic", "schisis", "toxic",
    "toxicity", "toxin", "thorax",
    ]
)  # fmt: skip
_SHORTEST = 4  # letters of a known word that a prefix may stand before


def american(word: str) -> Iterator[str]:
    """The American spellings that a lower-case word may be the British one of; never the word itself."""
    found = {word}
    for british, spelling in _SPELLINGS:
        found |= {text.replace(british, spelling) for text in found}
    for ending, spelling in _ENDINGS:
        found |= {ending.sub(spelling, text) for text in found if len(text) > 5}
    found.discard(word)
    return iter(sorted(found))


def compound(word: str, medical: Callable[[str], bool]) -> bool:
    """Whether a lower-case word is one or two prefixes of medicine before a word of medicine, or before a suffix."""
    return any(
        medical(rest) or rest in _SUFFIXES or any(medical(r) or r in _SUFFIXES for r in rests(rest))
        for rest in rests(word)
    )


def rests(word: str) -> Iterator[str]:
    """What stands after each prefix that the word begins with; "cardi" and "cardio" are both one."""
    for prefix in _PREFIXES:
        for begin in (prefix, prefix[:-1]) if len(prefix) > 4 and prefix.endswith("o") else (prefix,):
            rest = word[len(begin) :].removeprefix("-")
            if word.startswith(begin) and (len(rest) >= _SHORTEST or rest in _SUFFIXES):
                yield rest
