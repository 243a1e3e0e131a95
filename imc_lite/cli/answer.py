"""`imc-lite answer`."""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path

import click

from imc_lite.cli.options import ModelChoice, View, Within, model_options, picture_options, say_json
from imc_lite.cli.repair import say_why_unchecked
from imc_lite.errors import ImcError, shown
from imc_lite.results import Result
from imc_lite.upstream.errors import UpstreamUnavailable


@click.command()
@click.argument("image", required=False)
@click.argument("questions", nargs=-1, metavar="[QUESTION]...")
@click.option(
    "--batch", type=click.Path(path_type=Path), help='JSONL (- is stdin) or Parquet of {"id", "image", "question"}.'
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the batch's rows here; resumes.")
@click.option("--no-timings", is_flag=True, help="Leave the times out of a batch's rows: same rows, same bytes.")
@click.option("--ray", is_flag=False, flag_value="local", metavar="[ADDRESS]", help="Answer a batch on a Ray cluster.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a question, with the whole report.")
@click.option("--no-pdc", is_flag=True, help="Do not look for image noise, do not calibrate.")
@click.option("--no-sms", is_flag=True, help="Do not repair the question.")
@click.option("--prototypes", type=click.Path(path_type=Path), help="Your own, from `prototypes build`.")
@click.option("--max-risk", type=Within(0, 1), help="Give no answer that is likelier than this to be wrong.")
@click.option("--check-wording", is_flag=True, help="Ask in other words too; it counts in the confidence.")
@click.option("--confidence", type=click.Path(path_type=Path), help="Your model's own, from `calibrate`.")
@click.option("--upstream", metavar="URL", help="Another server of OpenAI's API answers, such as Ollama's.")
@click.option("--upstream-model", metavar="NAME", help="The model to ask there.  [default: the upstream's choice]")
@click.option("--timeout", type=Within(1, 3600), help="Seconds an answer of the upstream has.  [default: 60]")
@picture_options
@model_options
def answer(
    image: str | None,
    questions: tuple[str, ...],
    batch: Path | None,
    output: Path | None,
    no_timings: bool,
    ray: str | None,
    as_json: bool,
    no_pdc: bool,
    no_sms: bool,
    prototypes: Path | None,
    max_risk: float | None,
    check_wording: bool,
    confidence: Path | None,
    upstream: str | None,
    upstream_model: str | None,
    timeout: float | None,
    view: View,
    choice: ModelChoice,
) -> None:
    """Answer each QUESTION about IMAGE (a file, or - for stdin); the answers alone on stdout, a line each.

    \b
    imc-lite answer chest.png "Is the heart enlarged?"
    imc-lite answer chest.png "What modality is this?" "What body part is shown?"
    imc-lite answer --batch cases.jsonl -o answers.jsonl
    imc-lite answer --batch cases.parquet -o answers.parquet --ray
    imc-lite answer chest.png "Is there a pneumonia?" --max-risk 0.2
    imc-lite answer chest.png "Is it clear?" --upstream http://127.0.0.1:11434/v1
    """
    from imc_lite.images.load import load_shown
    from imc_lite.pipeline import IMC
    from imc_lite.trust.assess import check_asked

    def open_model() -> IMC:
        imc = choice.open(
            pdc=not no_pdc,
            sms=not no_sms,
            prototypes=prototypes,
            confidence=confidence,
            upstream=upstream,
            upstream_model=upstream_model,
            upstream_timeout=timeout,
        )
        if not no_pdc and (imc.prototypes is None or imc.prototypes.borrowed):
            so = "noise is not looked for" if imc.prototypes is None else "only pixels are restored"
            click.echo(f"imc-lite: no noise prototypes for {choice.model}, {so} (--prototypes)", err=True)
        check_asked(max_risk, check_wording, imc.confidence, upstream is None)
        return imc

    if upstream is None and (upstream_model is not None or timeout is not None):
        raise click.UsageError("--upstream-model and --timeout go with --upstream.")
    if upstream is not None and ray is not None:
        raise click.UsageError("--ray asks models of this package on many machines; leave it or --upstream out.")
    if upstream is not None and (max_risk is not None or check_wording or confidence is not None):
        raise click.UsageError(
            "--max-risk, --check-wording and --confidence are for models that answer here; leave --upstream out."
        )
    if no_pdc and prototypes is not None:
        raise click.UsageError("--no-pdc uses no prototypes; leave one of the two out.")
    if batch is not None:
        if image is not None:
            raise click.UsageError("--batch takes its images and questions from the file; leave the arguments out.")
        from imc_lite.batch.rows import Plan
        from imc_lite.batch.run import in_process, run_batch
        from imc_lite.batch.settings import describe

        plan = Plan(batch.parent, **view, timings=not no_timings, max_risk=max_risk, check_wording=check_wording)
        once = cache(open_model)
        answers = in_process(once)
        if ray is not None:
            from imc_lite.batch.ray import on_ray

            answers = on_ray(open_model, ray, choice.threads)
        done = run_batch(
            answers,
            batch,
            output,
            plan,
            lambda: describe(
                choice.model,
                plan,
                once,
                prototypes=prototypes,
                confidence=confidence,
                pdc=not no_pdc,
                sms=not no_sms,
                device=choice.device,
                quant=choice.quant,
                offline=choice.offline,
                upstream=upstream,
                upstream_model=upstream_model,
            ),
        )
        if not done.answered:
            click.echo(f"imc-lite: all {done.cases} cases have a row in {output} already", err=True)
        if done.failed:
            click.echo(f'imc-lite: {done.failed} cases could not be answered; their rows carry "error"', err=True)
        return
    if ray is not None or no_timings:
        raise click.UsageError("--ray and --no-timings go with --batch.")
    if output is not None:
        raise click.UsageError("-o goes with --batch; a single answer goes to stdout.")
    if image is None or not questions:
        raise click.UsageError("give an IMAGE and a QUESTION, or --batch.")
    # Refuse what cannot be answered before a model is fetched or loaded.
    _check_questions(questions)
    source: str | bytes = sys.stdin.buffer.read() if image == "-" else image
    picture = load_shown(source, **view)
    imc = open_model()
    several, failed, declined = len(questions) > 1, False, False
    for number, question in enumerate(questions, 1):
        try:
            result = imc.answer(picture, question, of_many=several, max_risk=max_risk, check_wording=check_wording)
        except ImcError as error:
            if not several or isinstance(error, UpstreamUnavailable):
                raise
            # The others are answered, and each answer stands in the line of its question.
            click.echo(f"imc-lite: question {number}: {error}", err=True)
            if as_json:
                say_json({"error": str(error)})
            else:
                click.echo()
            failed = True
            continue
        if as_json:
            row = result.to_dict()
            row["image"]["path"] = None if image == "-" else image
            say_json(row)
        else:
            if not no_sms:
                say_why_unchecked(result.question, f"question {number}" if several else "the question")
            say_what_speaks_against(result, f"question {number}" if several else "")
            # An empty line keeps its place among several.
            text = result.answer or ""
            # Of several, each has one line, also those of another server's model, which writes paragraphs.
            click.echo(" ".join(text.split()) if several else text, nl=several or result.answer is not None)
        declined = declined or result.answer is None
    if failed or declined:
        sys.exit(2 if failed else 3)


def say_what_speaks_against(result: Result, name: str) -> None:
    """On stderr, for whoever gets no report: why there is no answer, or what speaks against it."""
    found, where = result.selective, f"{name}: " if name else ""
    if found is None:
        return
    if found.refusal is not None:
        click.echo(f"imc-lite: {where}no answer: it {found.refusal}", err=True)
        return
    doubtful = result.confidence is not None and result.confidence < 0.5
    reasons = [f"it is likelier wrong than right (risk {found.risk:.2f})"] if doubtful else []
    if reasons := [*reasons, *found.reasons]:
        click.echo(f"imc-lite: {where}be careful: {'; '.join(reasons)}", err=True)


def _check_questions(questions: tuple[str, ...]) -> None:
    """Refuse what is no question.

    Raises:
        ImcError: one of them cannot be asked, or they are the words of one that lacks its quotes.
    """
    from imc_lite.sms.question import check_questions

    check_questions(questions)
    for question in questions:
        if os.path.isfile(question):
            text = shown(question)
            raise click.UsageError(
                f"{text} is a file, not a question; ask about one picture at a time, or use --batch."
            )
    # Is it clear? came without quotes; "Modality?" "Plane?" are two questions.
    words = len(questions) > 1 and all(len(question.split()) == 1 for question in questions)
    if words and not any("?" in question for question in questions[:-1]):
        raise click.UsageError(f"{len(questions)} single words came as a question each; put a question in quotes.")
