"""Questions about parts of the body that a picture does not show, in as many words as can be had.

A handful of fixed sentences is learnt by heart: a model trained on four a part answered "not shown in this image" to
all of them, and to half of the benchmark's, which name other findings. So sentences are put together here from
structures, findings and frames, and clinicians' own questions about one part of the body are asked about another.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from wordings import FOREIGN, WITHOUT_BONES

from imc_lite.bench.findings import NEAR, NOT_SHOWN

# By part of the body: things to ask about in the singular, in the plural, and findings that may be present.
THINGS: dict[str, tuple[str, str, str]] = {
    "chest": (
        "heart, trachea, aorta, diaphragm, mediastinum, left lung, right lung, cardiac silhouette, aortic arch, "
        "left upper lobe, right lower lobe, left hilum, pleura, sternum, oesophagus, pulmonary trunk",
        "lungs, lung fields, ribs, hila, clavicles, bronchi, costophrenic angles, pulmonary vessels, heart valves",
        "pneumonia, a pneumothorax, a lung nodule, consolidation of the lung, cardiomegaly, pulmonary oedema, "
        "atelectasis, a lung mass, a rib fracture, emphysema, a chest tube, a pacemaker, tuberculosis, "
        "an aortic aneurysm, air under the diaphragm, a central line, lung fibrosis, bronchitis",
    ),
    "head": (
        "brain, cerebellum, skull, brainstem, pituitary gland, corpus callosum, left frontal lobe, "
        "right temporal lobe, midline, left hemisphere, optic nerve, thalamus, sella, hippocampus, skull base",
        "ventricles, eyes, sinuses, cerebral hemispheres, basal ganglia, sulci, meninges, cranial nerves, orbits",
        "a stroke, a brain tumour, a glioma, a meningioma, hydrocephalus, a subdural haematoma, "
        "an infarct of the brain, midline shift, an aneurysm of a cerebral artery, brain oedema, "
        "a pituitary adenoma, multiple sclerosis, atrophy of the brain, a brain abscess, sinusitis",
    ),
    "abdomen": (
        "liver, spleen, pancreas, stomach, gallbladder, bladder, left kidney, right kidney, colon, appendix, duodenum, "
        "portal vein, small bowel, left adrenal gland, prostate, uterus, abdominal aorta, psoas muscle",
        "kidneys, intestines, bowel loops, adrenal glands, ureters, bile ducts, iliac vessels, ovaries",
        "ascites, kidney stones, a liver mass, appendicitis, pancreatitis, an enlarged spleen, bowel obstruction, "
        "liver cirrhosis, a cyst of the kidney, diverticulitis, a hernia, free air in the abdomen, hydronephrosis, "
        "a tumour of the pancreas, fatty liver, colitis, an abscess of the liver, a stone in the ureter",
    ),
    "skin": (
        "mole, skin lesion, pigment network, lesion's border, lesion's colour, birthmark, streak of pigment",
        "moles, freckles, pigment globules, hair follicles, dots of pigment, borders of the lesion",
        "a melanoma, a nevus, asymmetry of the mole, skin cancer, a blue-white veil, an atypical pigment network, "
        "a basal cell carcinoma, regression of the lesion, a harmless mole, an itchy mole",
    ),
    "foot": (
        "foot, heel, big toe, foot ulcer, wound on the foot, sole of the foot, ankle, wound bed, edge of the wound",
        "toes, toenails, foot wounds, ulcers of the foot, edges of the ulcer",
        "a foot ulcer, a wound on the toe, a diabetic foot, gangrene of the toe, a callus on the sole, "
        "an infected wound of the foot, an ulcer on the heel, dead tissue in the wound, a blister on the foot",
    ),
    "blood": (
        "white blood cell, blood smear, neutrophil, lymphocyte, blood film, nucleus of the leukocyte",
        "red blood cells, white blood cells, platelets, lymphocytes, neutrophils, erythrocytes, blood cells",
        "leukaemia, anaemia, sickle cells, malaria parasites, a platelet, an eosinophil, a clump of platelets, "
        "a low number of platelets, abnormal red blood cells, a monocyte",
    ),
    "cells": (
        "nucleus, cell nucleus, largest nucleus, chromatin, nuclear membrane, nuclear stain",
        "nuclei, cell nuclei, fluorescent nuclei, stained nuclei, dividing nuclei, nucleoli",
        "a dividing nucleus, mitosis, overlapping nuclei, a fragmented nucleus, crowded nuclei",
    ),
}
FRAMES = (
    (
        *("Is the {} normal?", "Is the {} enlarged?", "How large is the {}?", "Where is the {}?"),
        *("Describe the {}.", "What is wrong with the {}?", "Is there a mass in the {}?"),
        *("Is the {} shifted?", "What does the {} look like?", "Is anything abnormal about the {}?"),
        *("Does the {} look healthy?", "Is the {} too big?", "Is the {} intact?", "What colour is the {}?"),
        *("Is the {} too small?", "What is the size of the {}?", "Is there damage to the {}?"),
    ),
    (
        *("Are the {} normal?", "Are the {} enlarged?", "How large are the {}?", "Where are the {}?"),
        *("Describe the {}.", "What is wrong with the {}?", "Are the {} too many?", "How many {} are there?"),
        *("Count the {}.", "Do the {} look healthy?", "Are the {} symmetric?", "Are the {} clear?"),
        *("What do the {} look like?", "Are the {} swollen?", "Is anything abnormal about the {}?"),
        *("Are there too few {}?", "Are the {} narrowed?"),
    ),
    (
        *("Is there {}?", "Do you see {}?", "Are there signs of {}?", "Does this patient have {}?"),
        *("Is {} present?", "Can {} be seen?", "Is there evidence of {}?", "Can {} be ruled out?"),
        *("Do you suspect {}?", "Any sign of {}?", "Does it look like {}?", "Is {} likely?"),
        *("Where is {} located?", "How severe is {}?", "Could this be {}?", "Would you diagnose {}?"),
        *("Do you notice {}?", "Has the patient got {}?", "Is the finding {}?"),
    ),
)
TERM_FRAMES = (
    *("Is there {first}?", "Is there {first} {second}?", "Is there {first} in the {thing}?", "Do you see {first}?"),
    *("Is the {first} {thing} normal?", "Does this show {first} or {second}?", "Any {first} near the {thing}?"),
    *("Is the {first} fractured?", "What is the {first} {thing}?", "Is {first} present on the left?"),
    *("Are there signs of {first}?", "Where is the {first}?", "Is the {thing} {first}?", "Could this be {first}?"),
)
# What a clinician's question about one part of the body names, and no question about another does.
NAMED = {
    "chest": r"lungs?|hearts?|cardiac|pleural?|pulmonary|pneumothora\w+|pneumonia|trachea\w*|ribs?|mediastin\w+",
    "head": r"brain|cerebell\w+|ventricles?|hemispheres?|midline|sulci|gyri|infarct\w*|stroke|frontal|skull|pituitary",
    "abdomen": r"livers?|spleen|kidneys?|pancrea\w+|gallbladder|bladder|bowels?|colon|stomach|intestin\w+|renal",
}
# Questions that any picture answers: how it was made, and what it shows at all.
GENERAL = (
    r"modality|plane|(what|which) organ|organ system|contain|is this an? |what (type|kind)|weight|imaging|taken|"
    r"^(is|are|can|do|does)\b.*\bin th(e|is) (image|picture)"
)


def clinicians(questions: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Of clinicians' questions, those that name structures of one part of the body and no other, by part."""
    found: dict[str, set[str]] = {part: set() for part in NAMED}
    for question in questions:
        parts = [part for part, words in NAMED.items() if re.search(rf"\b({words})\b", question, re.I)]
        if len(parts) == 1 and not re.search(GENERAL, question, re.I):
            found[parts[0]].add(question)
    return {part: tuple(sorted(some)) for part, some in found.items()}


def ask_elsewhere(
    source: str, organ: str, own: Mapping[str, tuple[str, ...]], rng: np.random.Generator
) -> tuple[str, str]:
    """A question about a part of the body that a picture of `organ` does not show, and the answer that says so.

    Args:
        source: the picture's set. Of VQA-RAD's own chest and abdomen neither is asked about the other: such slices show
            some of both.
        organ: what the picture shows, of `THINGS`.
        own: clinicians' questions by part (`clinicians`).
        rng: draws the question.
    """
    near = {organ} | NEAR.get(organ, set())
    if source == "vqa_rad" and organ in ("chest", "abdomen"):
        near |= {"chest", "abdomen"}
    part = str(rng.choice([p for p in THINGS if p not in near]))
    kind = rng.random()
    if kind < 0.15:
        fixed = FOREIGN[part] + (WITHOUT_BONES if organ in ("skin", "blood", "cells") else ())
        return str(rng.choice(fixed)), NOT_SHOWN
    if kind < 0.4 and own.get(part):
        return str(rng.choice(own[part])), NOT_SHOWN
    which = int(rng.integers(3))
    thing = str(rng.choice(THINGS[part][which].split(", ")))
    return str(rng.choice(FRAMES[which])).format(thing), NOT_SHOWN


def about_terms(terms: Sequence[str], rng: np.random.Generator, count: int) -> list[str]:
    """Clean questions with words of medicine that no picture's question has, for the repair of questions.

    A model that learns repair from the data sets' few thousand questions alone takes a rare word for a damaged common
    one ("malar" for "molar").

    Args:
        terms: single words.
        rng: draws them.
        count: of questions.
    """
    found = []
    for _ in range(count):
        part = THINGS[str(rng.choice(list(THINGS)))]
        first, second = rng.choice(terms, 2)
        thing = str(rng.choice(part[0].split(", ")))
        frame = str(rng.choice(TERM_FRAMES))
        found.append(frame.format(first=first, second=second, thing=thing))
    return found
