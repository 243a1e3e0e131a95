"""The deterministic half of question repair: tables with their right values, without the model."""

from types import SimpleNamespace

import numpy as np
import pytest

from imc_lite.models.deadline import NEVER
from imc_lite.noise.shorthand import SHORTHAND
from imc_lite.sms import guard
from imc_lite.sms.abbreviations import READINGS
from imc_lite.sms.agents import repair, repair_words
from imc_lite.sms.assessor import is_name, strange
from imc_lite.sms.channel import FAR_KEY, LOST, MISREAD, NEAR_KEY, SWAP, VOWEL, reach, slips
from imc_lite.sms.lexicon import default_lexicon
from imc_lite.sms.metered import BUDGET, Metered, SpentError
from imc_lite.sms.opposites import MARGIN, MARGIN_OF_A_PAIR, intact, opposites
from imc_lite.sms.proposers import propose, propose_at
from imc_lite.sms.question import is_english
from imc_lite.sms.symbols import is_address, is_symbol
from imc_lite.sms.text import join, split
from imc_lite.sms.word_forms import american, compound

LEXICON = default_lexicon()

# Every word of every class, and a slip of it that has no other reading: known it stays, damaged it comes back.
GUARDED = {
    "side": (
        "left right bilateral bilaterally unilateral ipsilateral contralateral",
        "bilaterl",
    ),
    "negation": (
        "no not nor never none neither without absent absence cannot isn't aren't doesn't don't wasn't "
        "weren't hasn't haven't can't isnt arent doesnt dont didnt wasnt werent hasnt havent hadnt cant couldnt wont "
        "wouldnt shouldnt normal abnormal normally abnormally non un",
        "witout",
    ),
    "position": (
        "upper lower anterior posterior superior inferior lateral medial proximal distal above below front "
        "behind inside outside cranial caudal central peripheral dorsal ventral middle top bottom midline ap "
        "pa",
        "posteror",
    ),
    "comparison": (
        "more less larger smaller bigger greater fewer most least than before after increased decreased "
        "increase decrease enlarged hyperdense hypodense hyperintense hypointense hyper hypo dilated "
        "collapsed higher high low elevated depressed",
        "hypodnse",
    ),
    "time": (
        "acute chronic subacute old new prior previous current systolic diastolic early late arterial venous",
        "chronc",
    ),
    "growth": (
        "benign malignant cancer cancerous carcinoma metastasis metastases metastatic tumor tumour",
        "malignnt",
    ),
    "person": (
        "male female man woman boy girl child adult",
        "femle",
    ),
    "procedure": (
        "transplant transplanted surgery surgical resection resected biopsy radiotherapy chemotherapy "
        "discharge discontinue",
        "biospy",
    ),
    "number": (
        "zero one two three four five six seven eight nine ten first second third fourth fifth eleven twelve "
        "thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy "
        "eighty ninety hundred thousand sixth seventh eighth ninth tenth eleventh twelfth single double multiple mm "
        "cm ml mg kg units",
        "multple",
    ),
    "anatomy": (
        "abdomen adrenal aorta appendix arm artery bladder bone bowel brain brainstem bronchus cecum "
        "cerebellum cerebrum chest clavicle colon cortex diaphragm duodenum esophagus eye femur gallbladder "
        "head heart hilum hip humerus ileum ilium intestine jejunum kidney kidneys larynx liver lobe lung "
        "lungs mediastinum muscle neck pancreas pelvis pericardium perineum peritoneum pharynx pleura "
        "prostate pylorus rectum rib ribs sinus skull spine spleen stomach thalamus thorax trachea ureter "
        "urethra uterus vein ventricle ventricles vertebra vertebrae ankle breast breasts cervix elbow finger foot "
        "knee ligament nerve ovaries ovary shoulder tendon testes testicle testis thymus thyroid tongue tonsil wrist "
        "ct mri mr",
        "mediastinm",
    ),
}


@pytest.mark.parametrize("name", GUARDED)
def test_the_guard_protects_every_word_of_a_class(name):
    words, _ = GUARDED[name]
    assert guard.CLASSES[name] == frozenset(words.split())
    for word in words.split():
        assert guard.protected(word) == name
        assert not guard.allowed(word, "anything", [], known=True)


def test_the_guard_has_no_other_class():
    assert guard.CLASSES.keys() == GUARDED.keys()


@pytest.mark.parametrize("name", GUARDED)
def test_a_damaged_guarded_word_is_allowed_back_where_nothing_else_is_near(name):
    words, damaged = GUARDED[name]
    found = {c.text: c for c in propose(damaged, LEXICON)}
    target = next(c for c in found.values() if c.text in words.split())
    rivals = [c.text for c in found.values() if c.slip <= target.slip + 1 and c.text != target.text]
    assert guard.allowed(damaged, target.text, rivals, known=False)
    assert not guard.ambiguous(damaged, target.text, LEXICON)
    assert not guard.allowed(damaged, target.text, ["not" if name != "negation" else "left"], known=False)


@pytest.mark.parametrize(
    ("seen", "meant", "left"),
    [
        ("rregular", "regular", True),
        ("regulr", "regular", False),
        ("mmature", "mature", True),
        ("matrue", "mature", False),
        ("mmobile", "mobile", True),
        ("ssimilar", "similar", True),
        ("simlar", "similar", False),
        ("rresectable", "resectable", True),
        ("witho", "with", True),
        ("witht", "with", True),
        ("wth", "with", False),
        ("inflmation", "inflation", True),
        ("inflatoin", "inflation", False),
        ("atpical", "apical", True),
        ("atpical", "atypical", True),
        ("cordiac", "cardiac", False),
        ("llobe", "lobe", False),
        ("ehance", "enhance", False),
        ("conusion", "confusion", True),
        ("heatoma", "hematoma", True),
        ("hyprxia", "hypoxia", True),
        ("artritis", "arthritis", True),
        ("tonge", "tone", True),
        ("nprmal", "normal", False),
        ("pesent", "present", False),
        ("flled", "filled", False),
    ],
)
def test_what_may_be_left_of_a_longer_word_is_not_read_as_the_shorter_one(seen, meant, left):
    assert guard.ambiguous(seen, meant, LEXICON) is left


def test_a_pair_that_is_also_formed_by_prefixes_keeps_the_wider_margin():
    assert opposites("afferent", LEXICON)["efferent"] == opposites("adduct", LEXICON)["abduct"] == MARGIN_OF_A_PAIR
    assert opposites("typical", LEXICON)["atypical"] == MARGIN


def test_a_negation_without_its_apostrophe_stays():
    for word in ("cant", "dont", "isnt", "wont"):
        assert guard.protected(word) == "negation"
        assert not guard.allowed(word, "can", [], known=False)


@pytest.mark.parametrize("question", ["Was 10 mq given?", "Is it 3 rnm wide?", "Is the weight 5 kf?"])
def test_a_few_letters_behind_a_number_are_not_guessed(question):
    words, _ = split(question)
    at = next(i for i, w in enumerate(words) if w.core in ("mq", "rnm", "kf"))
    assert propose_at(words, at, LEXICON) == [] != propose(words[at].core, LEXICON)


def test_shorthand_behind_a_number_is_read_unless_it_is_a_unit():
    for question, doubted in (("Are there 2 fx?", ["fx"]), ("Is the volume 5 nl?", []), ("Nl heart size?", ["Nl"])):
        words, starts = split(question)
        assert [words[i].core for i in strange(words, starts, LEXICON)] == doubted


def test_measures_are_guarded():
    for measure in ("12", "5.6cm", "t2", "l4", "c3", "2nd", "5th", "1,200", "12/03/2019", "40%", "3x4"):
        assert guard.protected(measure) == "number"
    assert guard.protected("couldn't") == "negation"
    assert guard.protected("mass") is None


# damaged -> what it would become, and whether the opposite is as near. The first five are one slip from both.
OPPOSITES = [
    ("aduction", "abduction", True), ("uilateral", "unilateral", True), ("nilateral", "unilateral", True),
    ("hypxdense", "hypodense", True), ("hyprtension", "hypertension", True), ("hyptension", "hypotension", True),
    ("hypthyroidism", "hypothyroidism", True), ("hypechoic", "hypoechoic", True), ("hypintense", "hypointense", True),
    ("illium", "ilium", True), ("ileam", "ileum", True), ("ilum", "ilium", True), ("uretr", "ureter", True),
    ("urethr", "urethra", True), ("peroeal", "peroneal", True), ("tibula", "fibula", True),
    ("anormal", "abnormal", True), ("bnormal", "abnormal", True), ("intrvertebral", "intervertebral", True),
    ("tachcardia", "tachycardia", False), ("hyperintnse", "hyperintense", False), ("hypodnse", "hypodense", False),
    ("bilatral", "bilateral", False), ("symetric", "symmetric", False), ("abnorml", "abnormal", False),
    ("femle", "female", False), ("anteror", "anterior", False), ("superor", "superior", False),
    ("witout", "without", False), ("withot", "without", False), ("lft", "left", False), ("efusion", "effusion", False),
    ("diverticultis", "diverticulitis", False), ("interventriclar", "interventricular", False),
]  # fmt: skip


@pytest.mark.parametrize(("damaged", "target", "ambiguous"), OPPOSITES)
def test_a_word_as_near_to_its_opposite_is_ambiguous(damaged, target, ambiguous):
    assert guard.ambiguous(damaged, target, LEXICON) is ambiguous


@pytest.mark.parametrize(
    ("word", "other"),
    [
        ("abduction", "adduction"), ("hypertension", "hypotension"), ("intracranial", "extracranial"),
        ("intercostal", "infracostal"), ("unilateral", "bilateral"), ("anteversion", "retroversion"),
        ("cystectomy", "cystostomy"), ("ilium", "ileum"), ("ureter", "urethra"), ("peroneal", "perineal"),
        ("male", "female"), ("with", "without"), ("left", "right"), ("afferent", "efferent"),
        ("supratentorial", "infratentorial"), ("macrocyte", "microcyte"), ("bradycardia", "tachycardia"),
        ("systolic", "diastolic"), ("benign", "malignant"), ("acute", "chronic"), ("proximal", "distal"),
        ("tendinitis", "tendinosis"), ("osteolytic", "osteoblastic"), ("symptomatic", "asymptomatic"),
        ("dysphagia", "dysphasia"), ("anterolateral", "posterolateral"), ("neutrophilia", "neutropenia"),
    ],
)  # fmt: skip
def test_opposites_know_each_other(word, other):
    assert other in opposites(word, LEXICON) and word in opposites(other, LEXICON)


def test_the_telling_letters_are_intact_or_not():
    assert intact("hypertnsion", "hypertension", "hypotension")
    assert not intact("hyprtension", "hypertension", "hypotension")
    assert intact("symetric", "symmetric", "asymmetric")
    assert not intact("aymmetric", "symmetric", "asymmetric")


# short form -> its readings; the first form of each was written out wrongly when the table had one reading each.
SEVERAL = {
    "tx": {"treatment", "transplant"}, "pic": {"picture", "peripherally inserted central catheter"},
    "bc": {"because", "breast cancer"}, "inf": {"inferior", "infection", "infiltrate"}, "rt": {"right", "radiotherapy"},
    "lt": {"left", "liver transplant"}, "sx": {"symptoms", "surgery"}, "abd": {"abdomen", "abduction"},
    "b/l": {"bilateral", "baseline"}, "gb": {"gallbladder", "glioblastoma"}, "pt": {"patient", "physical therapy"},
    "u": {"you", "units"}, "sup": {"superior", "supine"}, "fx": {"fracture", "fraction"}, "r": {"are", "right"},
    "ln": {"lymph node", "lupus nephritis"}, "met": {"metastasis"}, "vert": {"vertebra", "vertical"},
}  # fmt: skip
ONE = {
    "w/": "with", "w/o": "without", "w/out": "without", "hx": "history", "dx": "diagnosis", "nl": "normal",
    "abnl": "abnormal", "mets": "metastases", "pna": "pneumonia", "bilat": "bilateral", "cxr": "chest x-ray",
    "dz": "disease", "evid": "evidence", "consol": "consolidation", "&": "and", "pulm": "pulmonary", "ant": "anterior",
}  # fmt: skip


def test_short_forms_have_all_their_readings():
    for short, readings in SEVERAL.items():
        assert len(READINGS[short]) > 1 and readings <= set(READINGS[short])
    for short, reading in ONE.items():
        assert READINGS[short] == (reading,)
    assert all(short == short.lower() and readings for short, readings in READINGS.items())


def test_the_benchmark_abbreviates_more_than_is_read():
    """The noise has one reading a form; this says which of its forms are certain enough to be written out."""
    certain = {s for long, shorts in SHORTHAND.items() for s in shorts if READINGS.get(s) == (long,)}
    assert "pic" not in certain and "tx" not in certain and {"hx", "w/o", "pna"} <= certain


def loving(favourite):
    """A model that finds nothing damaged and loves the readings that hold a word: the table has to stand against it."""

    def score(prompt, candidates, tokens=None, deadline=NEVER):
        return [np.array([0.0 if favourite in c or c == "no" else -30.0, 0.0], np.float32) for c in candidates]

    unwritten = SimpleNamespace(text="", logprobs=())
    return SimpleNamespace(score=score, generate=lambda *_, **__: unwritten, encode=lambda text: text.split(" "))


@pytest.mark.parametrize(
    ("question", "favourite"),
    [
        ("Is there lung tx rejection?", "treatment"),
        ("Is the pic line in place?", "picture"),
        ("Is there a bc in the breast?", "because"),
        ("Is there an inf infiltrate?", "inferior"),
        ("Is the rt lung clear?", "right"),
        ("Is the lt lung clear?", "left"),
        ("Is there b/l effusion?", "bilateral"),
        ("Is there abd pain?", "abdomen"),
    ],
)
def test_a_short_form_with_a_guarded_reading_is_left_and_named(question, favourite):
    report = repair(loving(favourite), question)
    assert report.repaired == question
    assert any(word in report.unsure for word in question.rstrip("?").split())


def test_a_short_form_without_a_guarded_reading_is_the_models_to_choose():
    assert repair(loving("patient"), "Is the pt intubated?").repaired == "Is the patient intubated?"
    torn = SimpleNamespace(
        score=lambda prompt, candidates, tokens=None, deadline=NEVER: [np.array([0.0], np.float32) for _ in candidates],
        encode=lambda text: text.split(" "),
        generate=lambda *_, **__: SimpleNamespace(text="", logprobs=()),
    )
    report = repair(torn, "Is the pt intubated?")
    assert report.repaired == "Is the pt intubated?" and report.unsure == ("pt",)


COSTS = [
    ("teh", "the", SWAP), ("hart", "heart", LOST), ("lunp", "lung", FAR_KEY), ("lunh", "lung", NEAR_KEY),
    ("lungg", "lung", NEAR_KEY), ("lunbg", "lung", NEAR_KEY), ("lumng", "lung", NEAR_KEY), ("lqung", "lung", FAR_KEY),
    ("1ung", "lung", MISREAD), ("irnage", "image", MISREAD), ("tbe", "the", MISREAD), ("cleor", "clear", MISREAD),
]  # fmt: skip


@pytest.mark.parametrize(("seen", "meant", "cost"), COSTS)
def test_what_a_slip_costs(seen, meant, cost):
    assert slips(seen)[meant][0] == cost == reach(seen, meant)


def test_reach_adds_slips_up():
    assert reach("heart", "heart") == 0
    assert reach("hyptension", "hypertension") == 2 * LOST
    assert reach("ileam", "ilium") == 2 * VOWEL
    assert reach("pnemothoraz", "pneumothorax") == LOST + NEAR_KEY
    assert reach("kidney", "aorta", most=3.0) == float("inf")


def test_proposals_and_their_costs():
    assert next((c.text, c.cost, c.reason) for c in propose("hert", LEXICON)) == ("heart", LOST, "typo")
    assert [(c.text, c.slip) for c in propose("pnemothoraz", LEXICON)] == [("pneumothorax", LOST + NEAR_KEY)]
    assert {c.text for c in propose("ilum", LEXICON)} >= {"ileum", "ilium", "hilum"}
    assert propose("x" * 41, LEXICON) == []
    # The model weighs eight; the guard sees all.
    assert len(propose("ate", LEXICON)) > 8


@pytest.mark.parametrize(
    "word",
    [
        "haemopneumothorax", "oesophageal", "oedematous", "haematuria", "anaemia", "leucocytosis", "tumour", "fibre",
        "visualised", "localisation", "paediatric", "orthopaedic", "diarrhoea", "hypoxaemia", "coeliac", "caecum",
        "catheterised", "gynaecomastia", "foetal", "aetiology", "centre", "calibre", "neovascularisation",
        "perihepatic", "retrocaval", "nondisplaced", "choledochojejunostomy", "arthropathy", "cardiomegaly's",
        "costophrenic", "subsegmental", "interlobular", "hepatopathy", "lymphocytosis", "sternocleidomastoid",
    ],
)  # fmt: skip
def test_words_that_need_no_second_look(word):
    assert LEXICON.common(word)


@pytest.mark.parametrize(
    "word", ["meningoma", "hypertnsion", "cardiomegly", "lession", "oedma", "haemorhage", "pneumothroax"]
)
def test_slips_are_no_words(word):
    assert not LEXICON.common(word)


def test_british_and_compound_words_by_rule():
    assert "hemorrhage" in american("haemorrhage") and "edema" in american("oedema") and "color" in american("colour")
    assert compound("hyperechoic", {"echoic"}.__contains__) and not compound("hyprechoic", {"echoic"}.__contains__)


SYMBOLS = [
    ("µm", "50 ", "?"), ("cm", "50 ", "?"), ("Tc", "this ", "-99m"), ("99m", "Tc-", "?"), ("kVp", "Is ", " "),
    ("mAs", "and ", "?"), ("SUVmax", "", " "), ("FiO2", "", " "), ("eGFR", "", " "), ("CTDIvol", "", " "),
    ("F", "", "-18 FDG"), ("I", "", "-131"), ("Kienböck", "is ", " "), ("3mm", "2-", " "),
    ("18F", "", "-FDG"), ("T12", "", " "), ("S1Q3T3", "", " "),
]  # fmt: skip


@pytest.mark.parametrize(("core", "before", "after"), [s for s in SYMBOLS if s[0] not in ("F", "I")])
def test_symbols_are_no_typos(core, before, after):
    assert is_symbol(core, before, after)


@pytest.mark.parametrize("core", ["lession", "1ung", "mas5", "diagn0sis", "Iung", "p1ane", "lIver"])
def test_misread_words_are_no_symbols(core):
    assert not is_symbol(core, "the ", " ")


@pytest.mark.parametrize(
    "part",
    ["https://example.org/a?b=c", "www.example.org", "a@b.org", "scan_01.dcm", "C:\\scan", "/home/x/y.png", "a" * 64,
     "9f86d081884c7d65", "1.2.840.113619.2.55.3", "img_1.jpg"],
)  # fmt: skip
def test_addresses_and_identifiers_are_not_read(part):
    words, starts = split(f"Is {part} normal?")
    assert is_address(part) or not strange(words, starts, LEXICON)


def test_names_are_left_alone():
    for question, name in (
        ("Is Dr Patel's read correct?", "Patel's"),
        ("Did Mr O'Brien fall?", "O'Brien"),
        ("Is there a Zzyzx sign?", "Zzyzx"),
    ):
        words, _ = split(question)
        assert is_name(words, [w.core for w in words].index(name))
    for question in ("Iung clear", "Is the Iung clear?", "Is The Heart Enlargd?"):
        words, _ = split(question)
        assert not any(is_name(words, i) for i in range(len(words)))


FOREIGN = """
Gibt es eine Fraktur?
Ist das Herz vergrößert?
Où est la lésion?
Y a-t-il une fracture?
¿Dónde está la lesión?
C'è un versamento pleurico?
Há fratura?
Er der et brud?
Is er een fractuur?
Onko murtuma?
Czy jest złamanie?
Kırık var mı?
Есть ли перелом?
骨折はありますか
هل يوجد كسر؟
""".strip().splitlines()


@pytest.mark.parametrize("question", FOREIGN)
def test_other_languages_are_left_alone_and_it_is_said(question):
    report = repair(loving(""), question)
    assert report.repaired == question and not report.checked and "English" in report.reason


@pytest.mark.parametrize(
    "question",
    ["Wht abnrmality s visble?", "Ths hert enlrgd?", "L or R?", "Is there a Le Fort II fracture?", "pnuemonia?",
     "w/ or w/o contrast", "TE/TR?", "Cannot r/o PE?", "DDx?", "AP vs PA?", "post op hypodnse lesion"],
)  # fmt: skip
def test_damaged_or_short_english_is_english(question):
    assert is_english(question, LEXICON)


def test_the_work_on_a_question_is_bounded_and_it_is_said_what_was_left():
    spent = []

    def score(prompt, candidates, tokens=None, deadline=NEVER):
        spent.append(len(prompt.split(" ")) + sum(len(c.split(" ")) for c in candidates))
        return [np.array([-9.0 * (c == "yes")], np.float32) for c in candidates]

    model = SimpleNamespace(score=score, encode=lambda text: text.split(" "))
    question = "Is there a " + "lession and a fractre in the hert and teh lungg with an efusion " * 12 + "?"
    report = repair(model, question)
    assert not report.checked and "too long" in report.reason and sum(spent) <= BUDGET
    assert report.repaired.endswith(question[-300:]) and {"lession", "fractre", "hert"} <= set(report.unsure)
    assert report == repair(model, question)
    assert repair(model, "Is there a mass?").checked


def test_work_is_paid_before_it_is_done():
    model = Metered(loving(""), budget=20)
    with pytest.raises(SpentError):
        model.score("a " * 30, ["b"])
    assert model.left == 20
    model.score("a", ["b", "b c"])
    assert model.left < 20


def test_words_parted_and_joined_keep_their_letters():
    found = repair_words(Metered(loving("pneumothorax")), "Is there a pneumo thorax?", LEXICON)
    assert found.words == ["Is", "there", "a", "pneumothorax?", ""] and found.whole[-1] == "pneumothorax?"
    assert found.edits[0].source == "pneumo thorax"
    words, _ = split("no table")
    assert join(words) == "no table"
    for halves in ("no table", "un stable", "in active"):  # both are words, or one is guarded
        question = f"Is it {halves}?"
        assert repair(loving(halves.replace(" ", "")), question).repaired == question


def test_a_word_of_a_prefix_and_a_damaged_one_is_in_no_list_and_mended():
    assert "nonliver" not in LEXICON.rank
    found = repair_words(Metered(loving("nonliver")), "Is there nonlver tissue?", LEXICON)
    assert found.words[2] == "nonliver"
