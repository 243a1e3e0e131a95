"""Batches on many machines: Ray Data hands blocks of rows to actors that hold a model each.

Actors open pictures by the paths that the rows name, so all machines must see them; nothing else is shared. Rows come
back in order and are written by the process that was started, one by one, as without Ray: a run that was killed goes
on where the file ends.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from imc_lite.batch.run import Answers, Plan, answer_row
from imc_lite.errors import ImcError
from imc_lite.images.decoder_output import no_stderr
from imc_lite.pipeline import IMC

LOCAL = "local"
REACH = 10  # seconds
BLOCK = 64  # rows an actor is handed at a time, at most; what a killed run has to do again is a few of these


class Answerer:
    """An actor: a model, opened once."""

    def __init__(self, open_model: Callable[[], IMC], plan: Plan, folder: str) -> None:
        # Relative paths mean the same as where the run was started; elsewhere each row says what is missing.
        with contextlib.suppress(OSError):
            os.chdir(folder)
        self._imc, self._plan = open_model(), plan

    def __call__(self, block: dict[str, Any]) -> dict[str, list[str]]:
        pairs = zip(block["line"], block["number"], strict=True)
        return {"row": [answer_row(self._imc, str(line), int(number), self._plan) for line, number in pairs]}


def on_ray(open_model: Callable[[], IMC], plan: Plan, address: str, threads: int) -> Answers:
    """Answers from a pool of actors, as many as the cluster has room for.

    Args:
        open_model: called here, to find out what is wrong before anything starts, and in every actor.
        plan: of the run.
        address: of a Ray cluster, or "local" to start one on this machine for the run.
        threads: CPUs an actor takes.

    Raises:
        ImcError: Ray is not installed; later, from the answers: the cluster cannot be reached or fails.
    """
    # Read when Ray is imported: it would report home, and its C++ part writes to stderr.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ImcError("ray is not installed; install imc-lite[ray]") from error

    def answers(lines: list[str], done: int) -> Iterator[str]:
        open_model()
        logging.getLogger("ray").setLevel(logging.ERROR)
        options = {"log_to_driver": False, "logging_level": logging.ERROR, "include_dashboard": False}
        if address != LOCAL:
            options = {"log_to_driver": False, "logging_level": logging.ERROR, "address": address}
        try:
            _check(address)
            with no_stderr:
                ray.init(**options)
        except Exception as error:  # Ray raises ConnectionError, RuntimeError, ValueError and its own
            raise ImcError(f"cannot reach or start Ray at {address} ({type(error).__name__}); check it") from error
        try:
            actors = max(1, min(int(ray.cluster_resources().get("CPU", 1) // threads), len(lines) - done))
            yield from _rows(ray.data, open_model, plan, lines, done, actors, threads)
        except ray.exceptions.RayError as error:
            cause = f"the Ray run failed ({type(error).__name__})"
            raise ImcError(f"{cause}; run the same command again, it goes on where it stopped") from error
        finally:
            ray.shutdown()

    return answers


def _check(address: str) -> None:
    """Ray itself waits for minutes before it says that nobody answers at HOST:PORT."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=REACH).close()


def _rows(
    data: Any, open_model: Callable[[], IMC], plan: Plan, lines: list[str], done: int, actors: int, threads: int
) -> Iterator[str]:
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    # Its logger is set up when a dataset is made; on stderr its lines would stand between ours.
    logger = logging.getLogger("ray.data")
    logger.handlers, logger.propagate = [logging.NullHandler()], False
    left = [{"number": number, "line": line} for number, line in enumerate(lines[done:], done + 1)]
    block = max(1, min(BLOCK, len(left) // (4 * actors)))
    answered = data.from_items(left, override_num_blocks=-(-len(left) // block)).map_batches(
        Answerer,
        fn_constructor_args=(open_model, plan, str(Path.cwd())),
        batch_size=None,
        compute=data.ActorPoolStrategy(size=actors),
        num_cpus=threads,
    )
    for row in answered.iter_rows():
        yield str(row["row"])
