"""The `imc-lite` command. Answers go to stdout, everything else to stderr; bad input exits with 2."""

from __future__ import annotations

import os
import sys

import click

from imc_lite import __version__
from imc_lite.cli.answer import answer, inspect, repair
from imc_lite.cli.bench import bench
from imc_lite.cli.models import bundle, export, prototypes, pull
from imc_lite.cli.noise import noise
from imc_lite.cli.serve import serve
from imc_lite.errors import ImcError


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


for command in (answer, inspect, repair, noise, prototypes, pull, bundle, export, bench, serve):
    cli.add_command(command)


def _command(error: click.UsageError) -> str:
    return error.ctx.command_path if error.ctx else "imc-lite"


def _die(message: str, code: int) -> None:
    click.echo(f"imc-lite: {' '.join(message.split())}", err=True)
    sys.exit(code)
