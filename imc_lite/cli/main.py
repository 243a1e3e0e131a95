"""The `imc-lite` command. Answers go to stdout, everything else to stderr; bad input exits with 2."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import sys
from typing import Any, NoReturn

import click

from imc_lite import __version__
from imc_lite.cli.answer import answer
from imc_lite.cli.bench import bench
from imc_lite.cli.demo import demo
from imc_lite.cli.doctor import doctor
from imc_lite.cli.env import env
from imc_lite.cli.inspect import inspect
from imc_lite.cli.models import bundle, calibrate, export, prototypes, pull
from imc_lite.cli.noise import noise
from imc_lite.cli.plan import plan
from imc_lite.cli.repair import repair
from imc_lite.cli.serve import serve
from imc_lite.errors import ImcError


def main() -> None:
    """Entry point: one line on stderr for whatever goes wrong, never a traceback."""
    # Before numpy is imported: on shared cores its idle threads spin against the model's, ten times slower than one.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    # Before transformers is imported: its notes and progress bars would stand among the command's own lines.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    closed = _open_streams()
    if "stdout" in closed and sys.argv[1:2] not in (["serve"], ["demo"]):  # which answers elsewhere
        _die("stdout is closed, there is nowhere to answer; send it to a file, or to /dev/null", 2)
    if "stdin" in closed and "-" in sys.argv[1:]:
        _die("stdin is closed and - reads from it; name a file, or send one in with <", 2)
    if "stderr" not in closed:
        _keep_stderr()
    for stream in (sys.stdout, sys.stderr):  # what the terminal or the file cannot hold becomes "?"
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        code = cli.main(standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code if isinstance(code, int) else 0)
    except ImcError as error:
        _die(str(error), 2)
    except click.exceptions.NoArgsIsHelpError as error:  # its message is the whole help
        _die(f"{_names(error)}. Try `{_command(error)} --help`.", 2)
    except click.UsageError as error:
        _die(f"{error.format_message()} Try `{_command(error)} --help`.", 2)
    except click.ClickException as error:
        _die(error.format_message(), 2)
    except (click.Abort, KeyboardInterrupt):
        _die("interrupted", 130)
    except (_ReaderLeft, BrokenPipeError):
        _say_no_more()  # whoever read our output has gone
        sys.exit(141)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            _unexpected(error)
        _say_no_more()
        _die(f"cannot write the output ({error.strerror}); send it elsewhere, or free space", 2)
    except Exception as error:
        _unexpected(error)


def _keep_stderr() -> None:
    """Have what this package says go where file descriptor 2 leads now. `imc_lite.images.decoder_output` points that
    elsewhere while a library reads, for all threads."""
    sys.stderr.flush()
    # Nothing is kept back, so that nothing can fail at the end, where a full disk would change the exit code.
    raw = open(os.dup(2), "wb", buffering=0)  # noqa: SIM115 (open to the end)
    sys.stderr = io.TextIOWrapper(raw, encoding=sys.stderr.encoding, write_through=True)  # type: ignore[type-var]


def _names(error: click.UsageError) -> str:
    """The commands that may follow."""
    group = error.ctx.command if error.ctx is not None else cli
    known = group.list_commands(click.Context(group)) if isinstance(group, click.Group) else []
    return f"name a command: {', '.join(known)}" if known else "arguments are missing"


def _say_no_more() -> None:
    """What is left to be written to stdout goes nowhere: a second error at exit would only be noise."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _unexpected(error: Exception) -> NoReturn:
    """A fault of ours: said in a line, or with its traceback to whoever wants that."""
    if os.environ.get("IMC_LITE_DEBUG"):
        raise error
    _die(f"unexpected {type(error).__name__}: {str(error)[:80]}; set IMC_LITE_DEBUG=1 to see where", 1)


class _ReaderLeft(Exception):
    """Whoever read our output has gone."""


class _Commands(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:  # click would end with 1, like a fault of ours
            raise _ReaderLeft from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="imc-lite")
def cli() -> None:
    """Answer questions about medical images, offline, on a small machine.

    Not a medical device.
    """


for command in (
    answer,
    inspect,
    repair,
    noise,
    prototypes,
    calibrate,
    pull,
    bundle,
    export,
    bench,
    serve,
    demo,
    env,
    doctor,
    plan,
):
    cli.add_command(command)


def _command(error: click.UsageError) -> str:
    return error.ctx.command_path if error.ctx else "imc-lite"


def _open_streams() -> set[str]:
    """Streams that were closed lead nowhere from here on; which of them. The next file that is opened would otherwise
    become the closed one, and what is printed would land in it."""
    closed = {name for name in ("stdin", "stdout", "stderr") if getattr(sys, name) is None}
    for name in ("stdin", "stdout", "stderr"):  # the order of their descriptors: the lowest free one is taken
        if name in closed:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115 (open to the end)
    return closed


def _die(message: str, code: int) -> NoReturn:
    # Of what was typed, the beginning and the end: a path is known by its last part.
    line = re.sub(r"(\S{40})\S{2,}(\S{39})", r"\1…\2", " ".join(message.split()))
    with contextlib.suppress(OSError):  # stderr may be full too; the code still says it
        click.echo(f"imc-lite: {line}", err=True)
    sys.exit(code)
