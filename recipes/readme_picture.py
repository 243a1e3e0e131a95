"""The README's picture, from a real run of the default model: a noisy scan, a garbled question, what becomes of them.

    python recipes/readme_picture.py

It writes docs/noisy_scan.png. What the picture says stands in its text chunk `facts` too, as JSON, and a test compares
that with what the model says today.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from imc_lite import IMC, load_image
from imc_lite.noise.image import apply_to_image
from imc_lite.noise.text import apply_to_text

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "noisy_scan.png"
SCAN, QUESTION, SEED = ROOT / "tests" / "images" / "synpic22286.jpg", "What body part is shown?", 0
IMAGE_NOISE, TEXT_NOISE = ("impulse", 5), ("ocr", 4)

WIDTH, HEIGHT, EDGE, TOP = 1640, 552, 36, 92
SHOWN = 440, 310  # a scan as it is drawn
COLUMNS = EDGE, 520, 850, 1334  # where each begins
INK, PALE, LINE, RED, GREEN = "#1f2328", "#59636e", "#d0d7de", "#b3261e", "#1a7f37"


def run() -> tuple[dict, np.ndarray, np.ndarray]:
    """What the picture says, and the scan as it came in and as it is shown to the model, uint8 [h, w, 3]."""
    imc = IMC.from_pretrained(offline=True)
    noisy = apply_to_image(load_image(SCAN), *IMAGE_NOISE, SEED)
    asked = apply_to_text(QUESTION, *TEXT_NOISE, SEED)
    result, seen = imc.answer(noisy, asked), imc.see(noisy)
    plain = IMC(imc.model, None, sms=False).answer(noisy, asked)
    noise = seen.report.noise
    assert noise is not None and seen.restored is not None and result.confidence is not None
    facts = {
        "asked": asked,
        "noise": noise.kind,
        "severity": noise.severity,
        "probability": f"{noise.probability:.2f}",
        "gradable": seen.report.gradable,
        "edits": [[edit.source, edit.target] for edit in result.question.edits],
        "repaired": result.question.repaired,
        "answer": result.answer,
        "confidence": f"{result.confidence:.2f}",
        "answer without PDC and SMS": plain.answer,
    }
    return facts, noisy, seen.restored


def draw(facts: dict, noisy: np.ndarray, restored: np.ndarray) -> Image.Image:
    """A white card, legible on a light and on a dark page."""
    card = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen = ImageDraw.Draw(card)
    pen.rectangle((0, 0, WIDTH - 1, HEIGHT - 1), outline=LINE, width=2)

    def say(x: int, y: int, text: str, size: int = 29, colour: str = INK) -> float:
        font = ImageFont.load_default(size)
        pen.text((x, y), text, colour, font)
        return x + pen.textlength(text, font)

    for x, title in zip(COLUMNS, ("What comes in", "What is found", "What the model gets", "Answer"), strict=True):
        say(x, EDGE, title, 27, PALE)
    for x, pixels in ((COLUMNS[0], noisy), (COLUMNS[2], restored)):
        card.paste(Image.fromarray(pixels).resize(SHOWN, Image.Resampling.LANCZOS), (x, TOP))
    verdict = "gradable" if facts["gradable"] else "not gradable"
    lines = (f"{facts['noise']} noise", f"severity {facts['severity']} of 5", f"probability {facts['probability']}")
    for i, line in enumerate((*lines, verdict)):
        say(COLUMNS[1], TOP + 70 + 48 * i, line, 34 if i == 0 else 29)
    below = TOP + SHOWN[1] + 36
    say(COLUMNS[0], below, facts["asked"], 34)
    say(COLUMNS[2], below, facts["repaired"], 34)
    for i, (before, after) in enumerate(facts["edits"]):
        y = below + 44 * i
        x = say(COLUMNS[1], y, before, 34, RED)
        arrow(pen, int(x) + 12, y + 22)
        say(int(x) + 66, y, after, 34, GREEN)
    say(COLUMNS[3], TOP + 70, facts["answer"], 60, GREEN)
    say(COLUMNS[3], TOP + 150, f"confidence {facts['confidence']}")
    say(COLUMNS[3], below + 4, "unaided, it says", 27, PALE)
    say(COLUMNS[3], below + 40, facts["answer without PDC and SMS"], 40, RED)
    return card


def arrow(pen: ImageDraw.ImageDraw, x: int, y: int) -> None:
    """From `x`, 40 pixels to the right, at the height `y`."""
    pen.line((x, y, x + 30, y), PALE, 4)
    pen.polygon(((x + 26, y - 9), (x + 42, y), (x + 26, y + 9)), PALE)


def main() -> None:
    facts, noisy, restored = run()
    info = PngImagePlugin.PngInfo()
    info.add_text("facts", json.dumps(facts))
    card = draw(facts, noisy, restored).quantize(96, dither=Image.Dither.NONE)
    card.save(PICTURE, optimize=True, pnginfo=info)


if __name__ == "__main__":
    main()
