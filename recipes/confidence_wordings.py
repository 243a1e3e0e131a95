"""Wordings that the confidence is fitted on: neither those of training (`wordings.py`) nor the benchmark's."""

from __future__ import annotations

from imc_lite.bench.findings import Topic, forms

TOPICS = {
    "kind": Topic(
        (
            "How would a radiographer name this sort of image?",
            "Which method gave this picture: ct, mri, x-ray, microscopy, dermoscopy or photograph?",
        ),
        forms(
            ("Was this made as {}?", "Is it right to file this under {}?"),
            {
                "ct": ("computed tomography", "CT"),
                "mri": ("magnetic resonance imaging", "MRI"),
                "x-ray": ("plain radiography", "x-ray"),
                "microscopy": ("microscopy",),
                "dermoscopy": ("dermoscopy",),
                "photograph": ("photography", "a photo"),
            },
        ),
    ),
    "organ": Topic(("What part of the patient was pictured?", "Which region does this image cover?"), {}),
    "pneumonia": Topic(
        ("Choose one: pneumonia or normal.", "Is the finding pneumonia, or is the film normal?"),
        {
            "pneumonia": ("Do the lungs suggest pneumonia?", "Can pneumonia be seen?"),
            "normal": ("Is this a normal film?", "Do the lungs look healthy?"),
        },
    ),
    "cause": Topic(
        ("Choose one: bacterial pneumonia, viral pneumonia or no pneumonia.",),
        {
            "bacterial pneumonia": ("Do the lungs suggest a bacterial pneumonia?",),
            "viral pneumonia": ("Do the lungs suggest a viral pneumonia?",),
            "no pneumonia": ("Can pneumonia be ruled out here?",),
        },
    ),
    "tumour": Topic(
        ("Choose one: glioma, meningioma or pituitary tumour.", "Which tumour does this slice show?"),
        forms(
            ("Does this slice show {}?", "Can this mass be {}?"),
            {
                "glioma": ("a glioma",),
                "meningioma": ("a meningioma",),
                "pituitary tumour": ("a tumour of the pituitary gland",),
            },
        ),
    ),
    "lesion": Topic(
        ("Choose one: melanoma or nevus.", "Does this spot count as melanoma or as nevus?"),
        {
            "melanoma": ("Does the spot look malignant?", "Can this be a melanoma?"),
            "nevus": ("Does the spot look benign?", "Can this be a nevus?"),
        },
    ),
    "ulcer": Topic(
        (),
        {
            "ulcer": ("Can a wound be seen on this foot?", "Does the foot show an ulcer?"),
            "no ulcer": ("Is the skin of this foot closed?", "Is this foot without a wound?"),
        },
    ),
    "height": Topic(("Is the wound in the upper or in the lower half of the picture?",), {}),
    "size": Topic(("Does the wound count as small or as large?",), {}),
    "nuclei": Topic(("Choose the number of nuclei: up to 15, 16 to 25, 26 to 50 or over 50.",), {}),
    "stain": Topic(("Choose how the nuclei are shown: fluorescence, stained or brightfield.",), {}),
}
FOREIGN = {
    "chest": ("Do the lungs hold too much air?", "Can a fluid level be seen in the chest?"),
    "head": ("Is the midline of the brain shifted?", "Can a stroke be seen in the brain?"),
    "abdomen": ("Is the liver too large?", "Can a kidney stone be seen?"),
    "skin": ("Does the mole have more than one colour?",),
    "foot": ("Is the wound on the foot infected?",),
    "blood": ("Are the platelets of this smear too few?",),
}
