"""Is a question one that can be asked, and one that this package can repair?"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from imc_lite.errors import ImcError
from imc_lite.sms.channel import slips
from imc_lite.sms.lexicon import Lexicon

MAX_QUESTION = 2000
# Words that English questions are built of, and ones that tell of another language because English has no such word,
# or hardly uses it in a question about a picture.
ENGLISH = frozenset(
    [
    "a", "an", "the", "is", "are", "was", "were", "be", "been", "do", "does", "did", "has", "have", "had", "can",
    "could", "will", "would", "should", "there", "this", "that", "these", "those", "it", "its", "what", "where",
    "which", "how", "why", "when", "who", "whose", "of", "in", "on", "at", "to", "for", "from", "by", "with",
    "without", "and", "or", "not", "no", "any", "some", "other", "than", "as", "if", "between", "here",
    "image", "picture", "scan", "patient",
    ]
)  # fmt: skip
FOREIGN = frozenset(
    [
    "das", "der", "dem", "des", "ein", "eine", "einer", "einem", "einen", "ist", "sind", "wird", "wurde", "gibt",
    "gab", "haben", "zeigt", "zu", "zum", "zur", "auf", "und", "oder", "nicht", "kein", "keine", "mit", "ohne",
    "welche", "welcher", "welches", "wo", "wie", "warum", "sieht", "sehen", "le", "un", "une", "du", "est", "sont",
    "elle", "ce", "cette", "ces", "quel", "quelle", "quels", "quelles", "ou", "où", "a-t-il", "avec", "sans",
    "dans", "sur", "pas", "que", "qui", "montre", "voit", "el", "los", "las", "una", "unos", "unas", "hay", "esta",
    "está", "este", "estos", "qué", "cuál", "dónde", "cómo", "por", "muestra", "lo", "gli", "dei", "delle", "della",
    "nel", "nella", "è", "sono", "c'è", "ci", "quale", "dove", "che", "senza", "vede", "questa", "questo", "mostra",
    "um", "uma", "uns", "umas", "é", "são", "há", "qual", "onde", "nas", "sem", "não", "isso", "neste", "nesta",
    "het", "een", "zijn", "zit", "waar", "wat", "welk", "welke", "hoe", "geen", "zonder", "dit", "deze", "zien",
    "det", "på", "af", "hvor", "hvad", "hvilken", "hvilket", "ikke", "uden", "vises", "är", "finns", "vad",
    "vilken", "inte", "och", "utan", "jest", "są", "czy", "gdzie", "jaki", "jaka", "jakie", "nie", "się", "bez",
    "widać", "je", "jsou", "kde", "jaký", "jaká", "zda", "ano", "bu", "mı", "mu", "mü", "nerede", "hangi", "değil",
    "ile", "yok", "onko", "missä", "mikä", "eikä",
    ]
) - ENGLISH  # fmt: skip
SHARE = 0.5  # of the words; more unknown ones, with not one little English word among them, are another language


def check_question(question: str) -> str:
    """The question in Unicode NFC with single spaces.

    Raises:
        ImcError: it is no text, too long, or empty.
    """
    if not isinstance(question, str):
        raise ImcError(f"the question must be text, not {type(question).__name__}; give a string")
    if len(question) > MAX_QUESTION:
        raise ImcError(f"the question has {len(question):,} characters, at most {MAX_QUESTION:,} are read; shorten it")
    text = normal_form(question)
    text = " ".join("".join(" " if unicodedata.category(c) == "Cc" else c for c in text).split())
    if not text:
        raise ImcError("the question is empty; ask something about the image")
    return text


def check_questions(questions: Sequence[str]) -> None:
    """Refuse what is no question; of several, the error says which one.

    Raises:
        ImcError: as for `check_question`.
    """
    for number, question in enumerate(questions, 1):
        try:
            check_question(question)
        except ImcError as error:
            if len(questions) == 1:
                raise
            raise ImcError(f"question {number}: {error}") from error


def normal_form(text: str) -> str:
    """Text in Unicode NFC without surrogates, which come from undecodable bytes on the command line and which no
    tokenizer takes."""
    return unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode("utf-8"))


def is_english(question: str, lexicon: Lexicon) -> bool:
    """Whether a question may be damaged English; a single word or two is taken for English.

    By its script, by the little words that each language builds its questions of, and by the share of known words.
    """
    letters = [c for c in question if c.isalpha()]
    if sum(c in "aAbBcCdDeEfFgGhHiIjJkKlLmMnNoOpPqQrRsStTuUvVwWxXyYzZ" for c in letters) < SHARE * len(letters):
        return False
    # Not "r/o", "w/": halves of abbreviations.
    found = re.findall(r"(?<![/\w])[^\W\d_]+(?:['’-][^\W\d_]+)*(?![/\w])", question)
    capitals = in_capitals(question)
    words = [w.lower() for w in found if capitals or not w.isupper() or len(w) == 1]
    english, foreign = _count(words, ENGLISH), _count(words, FOREIGN)
    unknown = [w for w in words if len(w) > 1 and not lexicon.common(w)]
    if foreign >= 2 and foreign > english:
        return False
    if foreign and unknown and foreign >= english:
        return False
    # A misspelt word is one slip away from a word of questions.
    strange = sum(not any(form in lexicon.domain for form in slips(w, likely=True)) for w in unknown)
    return len(words) < 3 or english > 0 or strange <= SHARE * len(words)


def in_capitals(question: str) -> bool:
    """Whether a question is written in capitals throughout, so that they say nothing; "CXR: PNA?" is not."""
    words = re.findall(r"[^\W\d_]+", question)
    return question.isupper() and len(words) > 2 and any(w.lower() in ENGLISH for w in words)


def _count(words: Sequence[str], which: frozenset[str]) -> int:
    return sum(w in which for w in words)
