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
from itertools import islice
from pathlib import Path
from typing import Any

from imc_lite.batch.answering import answer_rows, workers_of
from imc_lite.batch.rows import Case, Plan, case_from_json, case_to_json
from imc_lite.batch.run import Answers
from imc_lite.errors import ImcError, shown
from imc_lite.images.decoder_output import no_stderr
from imc_lite.pipeline import IMC

LOCAL = "local"
REACH = 10  # seconds
BLOCK = 64  # rows an actor is handed at a time, at most; what a killed run has to do again is a few of these
PART = 100_000  # cases that Ray is given at a time, so that memory stays the same; the actors open their models anew


class Answerer:
    """An actor: a model, opened once, and its replicas."""

    def __init__(self, open_model: Callable[[], IMC], plan: Plan, folder: str) -> None:
        # Relative paths mean the same as where the run was started; elsewhere each row says what is missing.
        with contextlib.suppress(OSError):
            os.chdir(folder)
        self._workers, self._plan = workers_of(open_model()), plan

    def __call__(self, block: dict[str, Any]) -> dict[str, list[str]]:
        cases = [case_from_json(str(case)) for case in block["case"]]
        return {"row": list(answer_rows(self._workers, cases, self._plan))}


def on_ray(open_model: Callable[[], IMC], address: str, threads: int) -> Answers:
    """Answers from a pool of actors, as many as the cluster has room for; a GPU each where the model here lies on one.

    Args:
        open_model: called here, to find out what is wrong before anything starts, and in every actor.
        address: of a Ray cluster, or "local" to start one on this machine for the run.
        threads: CPUs an actor takes.

    Raises:
        ImcError: Ray is not installed; later, from the answers: the cluster cannot be reached, has no room for an
            actor, or fails.
    """
    # Read when Ray is imported: it would report home, and its C++ part writes to stderr.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # Of a cluster that is started here: Ray would let its workers wait behind everything else on the machine (nice 15),
    # where a run without it waits for nobody.
    os.environ.setdefault("RAY_worker_niceness", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ImcError("ray is not installed; install imc-lite[ray]") from error

    def answers(cases: Iterator[Case], left: int, plan: Plan) -> Iterator[str]:
        # Ray hides GPUs from actors that ask for none.
        on_gpu = getattr(open_model().model, "on_gpu", False)
        logging.getLogger("ray").setLevel(logging.ERROR)
        where: dict[str, Any] = {"include_dashboard": False} if address == LOCAL else {"address": address}
        try:
            _check(address)
            with no_stderr:
                ray.init(log_to_driver=False, logging_level=logging.ERROR, **where)
        except Exception as error:  # Ray raises ConnectionError, RuntimeError, ValueError and its own
            why = f"cannot reach or start Ray at {shown(address)} ({type(error).__name__})"
            raise ImcError(f"{why}; check it") from error
        try:
            room = sum(_room(node["Resources"], threads, on_gpu) for node in ray.nodes() if node["Alive"])
            if not room:  # Ray would wait for such a machine
                lacks = f"fewer than the {threads} CPUs of --threads" + (", or no GPU for the model" if on_gpu else "")
                raise ImcError(f"every machine of the cluster has {lacks}; choose a device or threads that one has")
            actors = min(room, left)
            each = {"num_cpus": threads, "num_gpus": int(on_gpu)}
            while part := list(islice(cases, PART)):
                yield from _rows(ray.data, open_model, plan, part, actors, each)
        except ray.exceptions.RayError as error:
            cause = f"the Ray run failed ({type(error).__name__})"
            raise ImcError(f"{cause}; run the same command again, it goes on where it stopped") from error
        finally:
            ray.shutdown()

    return answers


def _room(machine: dict[str, float], threads: int, on_gpu: bool) -> int:
    """How many actors one machine has room for."""
    room = machine.get("CPU", 0) // threads
    return int(min(room, machine.get("GPU", 0)) if on_gpu else room)


def _check(address: str) -> None:
    """Ray itself waits for minutes before it says that nobody answers at HOST:PORT."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=REACH).close()


def _rows(
    data: Any, open_model: Callable[[], IMC], plan: Plan, cases: list[Case], actors: int, each: dict[str, int]
) -> Iterator[str]:
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    # Its logger is set up when a dataset is made; on stderr its lines would stand between ours.
    logger = logging.getLogger("ray.data")
    logger.handlers, logger.propagate = [logging.NullHandler()], False
    items = [{"case": case_to_json(case)} for case in cases]
    block = max(1, min(BLOCK, len(items) // (4 * actors)))
    answered = data.from_items(items, override_num_blocks=-(-len(items) // block)).map_batches(
        Answerer,
        fn_constructor_args=(open_model, plan, str(Path.cwd())),
        batch_size=None,
        compute=data.ActorPoolStrategy(size=actors),
        **each,
    )
    for row in answered.iter_rows():
        yield str(row["row"])
