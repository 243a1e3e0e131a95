"""`imc-lite repair`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from imc_lite.cli.options import ModelChoice, lines, model_options, say_json
from imc_lite.errors import ImcError

if TYPE_CHECKING:
    from imc_lite.results import QuestionReport


@click.command()
@click.argument("question")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a question, with every edit.")
@model_options
def repair(question: str, as_json: bool, choice: ModelChoice) -> None:
    """Repair QUESTION where that is safe, or each line of stdin with -; a clean one comes back as it is.

    \b
    imc-lite repair "Is teh hart enlarged?"
    imc-lite repair - < questions.txt
    """
    from imc_lite.sms.question import check_question

    if question != "-":
        check_question(question)
    imc = choice.open()
    failed = False
    for line in lines(question):
        try:
            report = imc.repair(line)
        except ImcError as error:
            # An empty line keeps its place, so that lines in and lines out stay side by side.
            click.echo(f"imc-lite: {error}", err=True)
            if as_json:
                say_json({"error": str(error)})
            else:
                click.echo()
            failed = True
            continue
        if as_json:
            say_json(report.to_dict())
            continue
        say_why_unchecked(report)
        click.echo(report.repaired)
    if failed:
        sys.exit(2)


def say_why_unchecked(question: QuestionReport, name: str = "the question") -> None:
    """On stderr, for whoever gets no report."""
    if not question.checked:
        click.echo(f"imc-lite: {name} was not checked: {question.reason}", err=True)
