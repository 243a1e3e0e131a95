"""`imc-lite demo`."""

from __future__ import annotations

import threading

import click

from imc_lite.cli.options import ModelChoice, model_options
from imc_lite.errors import missing


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="By default a free one.")
@click.option("--browser/--no-browser", default=True, help="Whether to open the page in your browser.")
@model_options
def demo(port: int, browser: bool, choice: ModelChoice) -> None:
    """Open the page of `imc-lite serve` on this machine, with example pictures and noise to try.

    \b
    imc-lite demo
    """
    try:
        from imc_lite.server.run import serve
    except ImportError as error:
        raise missing(error, "imc-lite[serve]") from error
    from imc_lite.server.settings import Settings

    def ready(url: str) -> None:
        click.echo(f"imc-lite: the page is {url}/#demo, Ctrl-C ends it", err=True)
        if browser:
            import webbrowser  # here, so that no other command waits for it

            # A browser in the terminal would keep whoever opens it waiting.
            threading.Thread(target=webbrowser.open, args=(f"{url}/#demo",), daemon=True).start()

    serve(choice.open, Settings(host="127.0.0.1"), port, 1, ready)
