"""Training's wordings about findings. The benchmark has others (`imc_lite/bench/findings.py`)."""

from __future__ import annotations

from imc_lite.bench.findings import RANGES, Topic, forms

KINDS = {
    "ct": ("a ct", "a CT scan", "computed tomography"),
    "mri": ("an mri", "an MRI scan", "a magnetic resonance image"),
    "x-ray": ("an x-ray", "a radiograph", "an x-ray picture"),
    "microscopy": ("a microscopy image", "a micrograph", "a microscope picture"),
    "dermoscopy": ("a dermoscopy image", "a dermatoscope picture", "dermoscopy of the skin"),
    "photograph": ("a photograph", "a photo", "an ordinary camera picture"),
}
PARTS = {
    "head": ("the head", "the brain", "a skull"),
    "chest": ("the chest", "the lungs", "the thorax"),
    "abdomen": ("the abdomen", "the belly"),
    "blood": ("blood", "blood cells", "a blood film"),
    "skin": ("the skin", "a skin lesion", "a mole"),
    "foot": ("a foot", "the foot", "the sole or the toes"),
    "cells": ("cell nuclei", "nuclei of cells"),
}
TUMOURS = {
    "glioma": ("a glioma", "glioma"),
    "meningioma": ("a meningioma", "meningioma"),
    "pituitary tumour": ("a pituitary tumour", "a pituitary tumor", "a pituitary adenoma", "a tumor of the pituitary"),
}
TOPICS = {
    "kind": Topic(
        (
            "What kind of picture is this?",
            "What kind of medical image is this?",
            "What type of image is shown?",
            "Which modality is this: ct, mri, x-ray, microscopy, dermoscopy or photograph?",
            "How was this image made?",
            "What is the modality?",
            "What imaging technique is this?",
            "Name the kind of image.",
            "State the modality.",
            "Identify the type of this medical image.",
            "Tell what kind of scan or photograph this is.",
            "Say which imaging method was used here.",
            "Classify this picture by modality.",
            "Which of ct, mri, x-ray, microscopy, dermoscopy and photograph is this?",
            "With what technique was the image acquired?",
            "Is this ct, mri, x-ray, microscopy, dermoscopy or a photograph?",
        ),
        forms(
            (
                "Is this {}?",
                "Is this image {}?",
                "Is the picture {}?",
                "Do you see {}?",
                "Is it {}?",
                "Does this look like {}?",
                "Am I looking at {}?",
            ),
            KINDS,
        ),
    ),
    "organ": Topic(
        (
            "What is shown in this image?",
            "What does this picture show?",
            "What part of the body is this?",
            "Which body part is in the picture?",
            "Which organ or part is this: head, chest, abdomen, blood, skin, foot or cells?",
            "What is pictured here?",
            "What was imaged?",
            "Name the body region.",
            "State what is pictured.",
            "Identify the organ or part of the body.",
            "Say which part of the body was examined.",
        ),
        forms(
            ("Does this show {}?", "Is this a picture of {}?", "Is {} shown here?", "Do we see {}?", "Was {} imaged?"),
            PARTS,
        ),
    ),
    "pneumonia": Topic(
        (
            "What does this chest x-ray show: pneumonia or normal lungs?",
            "Is this film normal or does it show pneumonia?",
            "What is the diagnosis, pneumonia or normal?",
            "What is the finding in the lungs?",
            "What disease is seen in the lungs, if any?",
            "What is your impression of this chest film?",
            "Normal or pneumonia?",
        ),
        {
            "pneumonia": (
                "Is there pneumonia?",
                "Is pneumonia present?",
                "Does this x-ray show pneumonia?",
                "Are there signs of pneumonia?",
                "Is there evidence of pneumonia in this film?",
                "Do you see pneumonia?",
                "Does this patient have pneumonia?",
                "Is there an infection of the lung?",
                "Is this chest x-ray abnormal?",
                "Are there infiltrates from pneumonia?",
                "Is the lung diseased?",
            ),
            "normal": (
                "Is the lung normal?",
                "Are the lungs normal?",
                "Are the lungs clear?",
                "Is this a normal chest x-ray?",
                "Does this film look normal?",
                "Is the chest x-ray without pneumonia?",
                "Are the lungs healthy?",
                "Is pneumonia absent?",
                "Is there no pneumonia?",
            ),
        },
    ),
    "cause": Topic(
        (
            "What kind of pneumonia is this?",
            "Is it bacterial pneumonia, viral pneumonia or no pneumonia?",
            "Which pneumonia is seen, bacterial or viral?",
            "What is the likely cause of the pneumonia: bacterial or viral?",
            "What type of pneumonia does this child have?",
            "What caused the pneumonia?",
            "Name the type of pneumonia.",
        ),
        {
            "bacterial pneumonia": (
                "Is this bacterial pneumonia?",
                "Is the pneumonia bacterial?",
                "Is the pneumonia caused by bacteria?",
                "Does this child have bacterial pneumonia?",
                "Are there signs of a bacterial pneumonia?",
            ),
            "viral pneumonia": (
                "Is this viral pneumonia?",
                "Is the pneumonia viral?",
                "Is the pneumonia caused by a virus?",
                "Does this child have viral pneumonia?",
                "Are there signs of a viral pneumonia?",
            ),
            "no pneumonia": (
                "Is this child's lung normal?",
                "Does this child have healthy lungs?",
                "Is there neither bacterial nor viral pneumonia?",
            ),
        },
    ),
    "tumour": Topic(
        (
            "What kind of tumour is this?",
            "What kind of tumor is shown?",
            "What type of brain tumor is this?",
            "Which tumour is seen: glioma, meningioma or pituitary tumour?",
            "What is the diagnosis?",
            "Name the tumour.",
            "What is the mass in this image?",
            "What is the type of the tumor?",
            "What tumour does this patient have?",
            "Is it a glioma, a meningioma or a pituitary tumour?",
        ),
        forms(
            ("Is this {}?", "Is the tumour {}?", "Is the tumor {}?", "Does this scan show {}?", "Is there {}?"), TUMOURS
        ),
    ),
    "lesion": Topic(
        (
            "What is this lesion?",
            "What kind of skin lesion is this?",
            "What kind of mole is this: melanoma or nevus?",
            "Is it a melanoma or a nevus?",
            "What is the diagnosis of this lesion?",
            "Melanoma or nevus?",
            "Name the lesion.",
            "Which is it, nevus or melanoma?",
        ),
        {
            "melanoma": (
                "Is this a melanoma?",
                "Is this lesion malignant?",
                "Is it skin cancer?",
                "Is there a melanoma?",
                "Does this look like melanoma?",
                "Is this mole malignant?",
                "Is the lesion suspicious for melanoma?",
            ),
            "nevus": (
                "Is this a nevus?",
                "Is this lesion benign?",
                "Is it a benign mole?",
                "Is this a harmless mole?",
                "Does this look like a nevus?",
                "Is this an ordinary mole?",
            ),
        },
    ),
    "ulcer": Topic(
        ("Is there an ulcer or no ulcer?", "What does the foot show, ulcer or no ulcer?"),
        {
            "ulcer": (
                "Is there an ulcer?",
                "Is there a wound?",
                "Does this foot have an ulcer?",
                "Do you see a foot ulcer?",
                "Is a wound visible on the foot?",
                "Is the skin of the foot broken?",
            ),
            "no ulcer": (
                "Is the foot without an ulcer?",
                "Is the skin of the foot intact?",
                "Is the foot free of wounds?",
                "Is there no wound on the foot?",
            ),
        },
    ),
    "side": Topic(
        (
            "On which side of the picture is the ulcer, left or right?",
            "Is the wound on the left or on the right?",
            "Is the ulcer in the left or right half of the picture?",
            "On which side is the wound?",
            "Which half of the image holds the ulcer, left or right?",
        ),
        forms(
            (
                "Is it on the {} side of the picture?",
                "Is the ulcer on the {} side of the picture?",
                "Is the wound on the {}?",
                "Is the ulcer in the {} half?",
                "Does the wound lie in the {} half of the image?",
            ),
            {"left": ("left",), "right": ("right",)},
        ),
    ),
    "height": Topic(
        (
            "Is the ulcer in the upper or lower half of the picture?",
            "Is the wound in the upper or the lower half?",
            "Which half of the image holds the wound, upper or lower?",
            "Is the ulcer in the upper or lower part?",
            "In which half is the ulcer, upper or lower?",
        ),
        forms(
            (
                "Is the ulcer in the {} half of the picture?",
                "Is the wound in the {} half?",
                "Is the wound in the {} part of the image?",
                "Does the ulcer lie in the {} half?",
            ),
            {"upper": ("upper",), "lower": ("lower",)},
        ),
    ),
    "size": Topic(
        (
            "Is the ulcer small or large?",
            "How large is the wound, small or large?",
            "What is the size of the ulcer?",
            "Is the wound large or small?",
            "How big is the wound?",
        ),
        forms(
            ("Is the ulcer {}?", "Is the wound {}?", "Is this a {} wound?", "Is this a {} ulcer?"),
            {"small": ("small",), "large": ("large",)},
        ),
    ),
    "nuclei": Topic(
        (
            "How many nuclei, about?",
            "About how many nuclei are there?",
            "How many nuclei are there: up to 15, 16 to 25, 26 to 50 or over 50?",
            "How many nuclei are visible?",
            "What is the number of nuclei, roughly?",
            "Roughly how many cell nuclei do you see?",
            "Count the nuclei: up to 15, 16 to 25, 26 to 50 or over 50?",
        ),
        forms(
            ("Are there {} nuclei?", "Are {} nuclei visible?", "Is the number of nuclei {}?", "Do you see {} nuclei?"),
            {value: (value,) for value in RANGES},
        ),
    ),
    "stain": Topic(
        (
            "How were these nuclei made visible?",
            "Is this fluorescence, stained or brightfield?",
            "Are the nuclei shown by fluorescence, stained or in brightfield?",
            "What staining is used?",
            "Which kind of microscopy is this: fluorescence, stained or brightfield?",
        ),
        {
            "fluorescence": ("Is this fluorescence microscopy?", "Are the nuclei fluorescent?", "Is it fluorescence?"),
            "stained": ("Is the tissue stained?", "Are the cells stained?", "Is this a stained section?"),
            "brightfield": ("Is this brightfield microscopy without a stain?", "Is it brightfield?"),
        },
    ),
}
# Asked of pictures that show another part of the body: the answer is that this is not shown.
FOREIGN = {
    "chest": ("Is there pneumonia?", "Is there a pneumothorax?", "Is the heart enlarged?", "Are the lungs clear?"),
    "head": ("What kind of brain tumor is this?", "Is there a stroke?", "Is the brain normal?", "Is there a glioma?"),
    "abdomen": ("Is the liver enlarged?", "Are there kidney stones?", "Is the spleen normal?", "Is there ascites?"),
    "skin": ("Is this a melanoma?", "Is the mole malignant?", "What skin lesion is this?"),
    "foot": ("Where is the foot ulcer?", "Is the wound on the foot large?", "Is there an ulcer on the foot?"),
    "blood": ("How many white blood cells are there?", "Is there a platelet?", "Are the red blood cells normal?"),
    "cells": ("How many nuclei are there?", "Are the nuclei stained?"),
}
# Bones are seen on films and scans of the body, never under a microscope or on the skin.
WITHOUT_BONES = ("Is there a fracture?", "Is a bone broken?", "Are the ribs intact?")
