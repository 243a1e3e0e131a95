"""`imc-lite plan`: what a model takes, before it is fetched."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from imc_lite.cli.options import say_json

MIB = 1 << 20


@click.command()
@click.argument("model")
@click.option("--offline", is_flag=True, help="Never use the network.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def plan(model: str, offline: bool, as_json: bool) -> None:
    """Say how many parameters MODEL has, and what disk and memory it takes in each precision.

    MODEL is `default`, a bundle, or a Hugging Face model: its folder or organisation/name. No weights are read or
    fetched; of a model on the hub the headers are asked for. Whether there is room is judged for the folder that you
    are in and for the memory that is free now.

    \b
    imc-lite plan google/medgemma-4b-it
    """
    from imc_lite.doctor.machine import free_disk, free_memory
    from imc_lite.models.open import is_checkpoint
    from imc_lite.plan.estimate import plan_bundle, plan_checkpoint

    checkpoint = model != "default" and is_checkpoint(model)
    found = plan_checkpoint(model, offline=offline) if checkpoint else plan_bundle(model)
    disk, memory = free_disk(Path()), free_memory()
    rows = []
    for way in found.ways:
        fits = None if disk is None or memory is None else way.disk <= disk and way.memory <= memory
        rows.append({**asdict(way), "fits": fits})
    if as_json:
        machine = {"disk": disk, "memory": memory}
        facts = {"kind": found.kind, "family": found.family, "parameters": found.parameters}
        say_json({**facts, "ways": rows, "free": machine})
        return
    for part, count in found.parameters.items():
        click.echo(f"parameters\t{part}\t{'not told by a manifest' if count is None else f'{count:,}'}")
    for row in rows:
        room = {True: "there is room", False: "no room here", None: "room unknown"}[row["fits"]]
        gpu = "" if row["device_memory"] is None else f"\tGPU memory {row['device_memory'] / MIB:,.0f} MiB"
        size = f"disk {row['disk'] / MIB:,.0f} MiB\tmemory {row['memory'] / MIB:,.0f} MiB"
        click.echo(f"{row['command']}\t{size}{gpu}\t{room}")
