"""`imc-lite doctor`: does this installation work, and what is to be done where it does not."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from imc_lite.cli.options import say_json


@click.command()
@click.option("--deep", is_flag=True, help="Also import torch and have it compute on the GPU; takes seconds more.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(deep: bool, as_json: bool) -> None:
    """Check this installation: packages, processor, memory, pictures, the default model, an answer.

    A line for each check: ok, warning or problem, what was found, what to do. Exit code 2 where something is a
    problem. Nothing is fetched, and no folder or name of yours is printed.

    \b
    imc-lite doctor
    """
    from imc_lite.doctor.examine import examine

    found = []
    for check in examine(deep=deep):
        found.append(check)
        if not as_json:
            click.echo("\t".join([check.state, check.name, check.detail, *([check.remedy] if check.remedy else [])]))
    whole = all(check.state != "problem" for check in found)
    if as_json:
        say_json({"ok": whole, "checks": [asdict(check) for check in found]})
    if not whole:
        sys.exit(2)
