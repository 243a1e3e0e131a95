"""`imc-lite noise`: damage pictures and questions, to see or measure what noise does."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from imc_lite.cli.options import View, lines, picture_options


@click.command()
@click.argument("image", required=False)
@click.option("--text", metavar="QUESTION", help="Damage a question instead; - reads one a line.")
@click.option("--kind", required=True, help="gaussian, speckle, impulse, motion_blur, …; typo, ocr, drop, shorthand.")
@click.option("--severity", type=int, default=3, show_default=True, help="1 (mild) to 5 (severe).")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="PNG to write.")
@picture_options
def noise(
    image: str | None, text: str | None, kind: str, severity: int, seed: int, output: Path | None, view: View
) -> None:
    """Write a noisy copy of IMAGE (a file, or - for stdin) as PNG, or print a question damaged.

    \b
    imc-lite noise chest.png --kind gaussian --severity 4 -o noisy.png
    imc-lite noise --text "Is the heart enlarged?" --kind typo
    """
    if (image is None) == (text is None):
        raise click.UsageError("give an IMAGE, or a question with --text.")
    if text is not None:
        from imc_lite.noise.text import apply_to_text

        if output is not None or view["window"] is not None or view["frame"] is not None:
            raise click.UsageError("-o, --window and --frame are for pictures; a question is printed.")
        for line in lines(text):
            click.echo(apply_to_text(line, kind, severity, seed))
        return
    if image is None or output is None:
        raise click.UsageError("name the PNG to write with -o.")
    from PIL import Image

    from imc_lite.files import check_output, write_atomically
    from imc_lite.images.load import load_image
    from imc_lite.noise.image import apply_to_image

    kind_of_file = Image.registered_extensions().get(output.suffix.lower(), "PNG")
    if kind_of_file != "PNG" or output.suffix.lower() in (".dcm", ".dicom"):
        raise click.UsageError(f"{output.name} is to hold a PNG; name it .png.")
    check_output(output, None if image == "-" else Path(image))
    source: str | bytes = sys.stdin.buffer.read() if image == "-" else image
    noisy = apply_to_image(load_image(source, **view), kind, severity, seed)
    write_atomically(output, lambda file: Image.fromarray(noisy).save(file, "PNG"))
