"""`imc-lite serve`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from imc_lite.cli.options import ModelChoice, Within, model_options
from imc_lite.errors import missing

if TYPE_CHECKING:
    from imc_lite.pipeline import IMC


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Models that answer at once.")
@click.option("--queue", type=click.IntRange(0, 100_000), default=64, show_default=True, help="Requests that may wait.")
@click.option("--timeout", type=Within(1, 3600), default=60, show_default=True, help="Seconds a request has.")
@click.option("--grace", type=Within(0, 3600), default=5, show_default=True, help="Seconds to finish after SIGTERM.")
@click.option("--max-body", type=click.IntRange(1, 1024), default=32, show_default=True, help="MiB of a request.")
@click.option("--max-pixels", type=click.IntRange(1, 100), default=40, show_default=True, help="Million, of a picture.")
@click.option("--max-tokens", type=click.IntRange(1, 512), default=64, show_default=True, help="Of an answer.")
@click.option(
    "--api-key-file", type=click.Path(path_type=Path), help="Holds the key; else IMC_LITE_API_KEY, else none."
)
@click.option(
    "--allow-host", multiple=True, metavar="HOST[:PORT]", help="Pictures may be fetched from there. Repeatable."
)
@click.option("--upstream", metavar="URL", help="Another server of OpenAI's API answers, such as Ollama's.")
@click.option("--upstream-model", metavar="NAME", help="Ask it for this model, whatever the request says.")
@click.option("--refuse-ungradable", is_flag=True, help="Send it no picture that is not known to be gradable.")
@click.option("--no-pdc", is_flag=True, help="Do not look for image noise, do not calibrate.")
@click.option("--no-sms", is_flag=True, help="Do not repair questions.")
@click.option("--max-risk", type=Within(0, 1), help="Give no answer that is likelier than this to be wrong.")
@click.option("--confidence", type=click.Path(path_type=Path), help="Your model's own, from `calibrate`.")
@click.option("--prototypes", type=click.Path(path_type=Path), help="Your own, from `prototypes build`.")
@model_options
def serve(
    host: str,
    port: int,
    workers: int,
    queue: int,
    timeout: float,
    grace: float,
    max_body: int,
    max_pixels: int,
    max_tokens: int,
    api_key_file: Path | None,
    allow_host: tuple[str, ...],
    upstream: str | None,
    upstream_model: str | None,
    refuse_ungradable: bool,
    no_pdc: bool,
    no_sms: bool,
    max_risk: float | None,
    confidence: Path | None,
    prototypes: Path | None,
    choice: ModelChoice,
) -> None:
    """Answer over HTTP, in the shape of OpenAI's chat API, with a page at /.

    \b
    imc-lite serve
    imc-lite serve --port 8080 --workers 2 --api-key-file key.txt
    imc-lite serve --max-risk 0.2
    imc-lite serve --upstream http://127.0.0.1:11434/v1
    """
    if any("/" in name for name in allow_host):
        raise click.UsageError("--allow-host takes HOST or HOST:PORT, not a URL.")
    if upstream is None and (upstream_model is not None or refuse_ungradable):
        raise click.UsageError("--upstream-model and --refuse-ungradable go with --upstream.")
    if no_pdc and prototypes is not None:
        raise click.UsageError("--no-pdc uses no prototypes; leave one of the two out.")
    if upstream is not None and (max_risk is not None or confidence is not None):
        raise click.UsageError("--max-risk and --confidence are for models that answer here; leave --upstream out.")
    try:
        from imc_lite.server.run import serve as run
    except ImportError as error:
        raise missing(error, "imc-lite[serve]") from error
    from imc_lite.server.settings import Settings, read_key
    from imc_lite.trust.assess import check_asked
    from imc_lite.upstream.client import Upstream

    settings = Settings(
        host=host,
        api_key=read_key(api_key_file),
        allow_hosts=tuple(h.lower() for h in allow_host),
        queue=queue,
        timeout=timeout,
        grace=grace,
        max_body=max_body << 20,
        max_pixels=max_pixels * 1_000_000,
        max_new_tokens=max_tokens,
        max_risk=max_risk,
        upstream=None if upstream is None else Upstream(upstream, upstream_model, offline=choice.offline),
        refuse_ungradable=refuse_ungradable,
    )

    def open_model() -> IMC:
        imc = choice.open(pdc=not no_pdc, sms=not no_sms, prototypes=prototypes, confidence=confidence)
        check_asked(max_risk, False, imc.confidence, here=True)
        return imc

    run(open_model, settings, port, workers)
