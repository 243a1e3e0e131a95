"""Commands about models as files: `bundle verify`, `bundle info`, `export`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from imc_lite.errors import ImcError


def register(cli: click.Group) -> None:
    """Add this module's commands to `imc-lite`."""
    cli.add_command(bundle)
    cli.add_command(export)


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
        click.echo(json.dumps(opened.manifest, ensure_ascii=False))
        return
    click.echo(f"id\t{opened.id}\nversion\t{opened.version}\nformat\t{opened.manifest['format']}")
    for source in opened.manifest.get("sources", []):
        click.echo(f"source\t{source['name']}\t{source['licence']}")
    for name, facts in opened.files.items():
        click.echo(f"file\t{name}\t{facts['size']:,} bytes")


@click.command()
@click.argument("model")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder to make.")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "int8"]),
    default="fp32",
    help="Of the encoder; int8 is faster, checked while it is made, and needs onnx.",
)
@click.option("--offline", is_flag=True, help="Never use the network.")
def export(model: str, output: Path, precision: str, offline: bool) -> None:
    """Write MODEL, `default` or a bundle, to a folder of its own, for a host without a network.

    There it runs with onnxruntime alone; nothing is fetched or built.

    \b
    imc-lite export default -o model/
    imc-lite export default --precision int8 -o model/
    imc-lite answer --model model/ scan.png "Is there a fracture?"
    """
    from imc_lite.bundle.copy import copy_bundle
    from imc_lite.pipeline import find_bundle

    if model != "default" and not Path(model).is_dir():
        raise ImcError(f"no model {model!r} to export: give `default` or the folder of a bundle")
    folder = find_bundle(model, offline=offline)
    if precision == "int8":
        try:
            from imc_lite.export.quantize import quantize_encoder
        except ImportError as error:
            raise ImcError(f"--precision int8 needs onnx and onnxruntime ({error}); install both") from error
        quantize_encoder(folder, output)
    else:
        copy_bundle(folder, output)
    click.echo(output)
