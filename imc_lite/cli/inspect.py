"""`imc-lite inspect`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imc_lite.cli.options import ModelChoice, View, model_options, picture_options, say_json
from imc_lite.errors import ImcError, shown

if TYPE_CHECKING:
    from imc_lite.gate.drift import Drift
    from imc_lite.gate.judge import Judged

BAD_INPUT, FAILED = 2, 3
OUTPUT = click.Path(path_type=Path)


@click.command()
@click.argument("images", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a picture.")
@click.option("--fail-on", multiple=True, metavar="RULE,…", help="Exit with 3 if a picture is so: see docs/gate.md.")
@click.option("--csv", type=OUTPUT, help="Write a row a picture here too.")
@click.option("--html", type=OUTPUT, help="Write a report to look at here.")
@click.option("--save-baseline", type=OUTPUT, help="Keep here what these pictures are like.")
@click.option("--baseline", type=OUTPUT, help="Say what has changed since that was kept.")
@click.option("--report", type=OUTPUT, help="Write what --baseline finds here, as JSON.")
@click.option("--prototypes", "file", type=click.Path(path_type=Path), help="Your own, from `prototypes build`.")
@picture_options
@model_options
def inspect(
    images: tuple[str, ...],
    as_json: bool,
    fail_on: tuple[str, ...],
    csv: Path | None,
    html: Path | None,
    save_baseline: Path | None,
    baseline: Path | None,
    report: Path | None,
    file: Path | None,
    view: View,
    choice: ModelChoice,
) -> None:
    """Say which noise each of IMAGES (pictures, folders) carries, how strong, and how sure that is.

    \b
    imc-lite inspect *.png
    imc-lite inspect incoming/ --fail-on not-gradable,unknown,gaussian:4 --csv verdicts.csv
    imc-lite inspect incoming/ --baseline usual.json --fail-on drift --html report.html
    """
    from imc_lite.files import check_output
    from imc_lite.gate.baseline import Baseline, Origin, check_origin, load_baseline
    from imc_lite.gate.drift import compare
    from imc_lite.gate.find import find_pictures
    from imc_lite.gate.judge import judge
    from imc_lite.gate.rows import CsvFile, json_row, text_row
    from imc_lite.gate.rules import DRIFT, UNREADABLE, parse_rules
    from imc_lite.gate.tally import Tally, summary

    rules = parse_rules(fail_on)
    words = {rule.word for rule in rules}
    if baseline is None and (DRIFT in words or report is not None):
        raise click.UsageError("--report and --fail-on drift compare with a --baseline; give one.")
    _check_outputs([csv, html, save_baseline, report], file)
    # The baseline of today may take the place of the one that was given; a report must not.
    _check_outputs([csv, html, report], baseline)
    then = load_baseline(baseline) if baseline else None
    found = find_pictures(images)
    for output in filter(None, (csv, html, save_baseline, report)):
        check_output(output, *(Path(candidate.path) for candidate in found.candidates))
    imc = choice.open_encoder(file)
    origin = Origin.of(imc, **view) if baseline or save_baseline else None
    if baseline and then and origin:
        check_origin(then, origin, baseline)
    tally = Tally(passed_over=found.passed_over)
    with ExitStack() as stack:
        table = stack.enter_context(CsvFile()) if csv else None
        for judged in _with_bar(judge(imc, found.candidates, **view), len(found.candidates)):
            met = [rule for rule in rules if rule.met_by(judged)]
            tally.add(judged, met)
            if judged.no_picture:
                continue
            with _above_bar(len(found.candidates)):
                if judged.error is not None:
                    # One unreadable picture does not keep the others from being judged.
                    click.echo(f"imc-lite: {judged.error}", err=True)
                if as_json:
                    say_json(json_row(judged, met if rules else None))
                elif line := text_row(judged, met):
                    click.echo(line)
            if table is not None:
                table.add(judged, met)
        if not tally.pictures + tally.unreadable:
            raise ImcError("there is no picture in what was given, only DICOM files without one; name another folder")
        if csv and table:
            table.save(csv)
    if found.folders or tally.pictures > 1:
        click.echo(summary(tally, bool(rules)), err=True)
    if origin and not tally.pictures:
        click.echo(
            "imc-lite: no picture could be judged, so nothing is compared and no baseline or report kept", err=True
        )
    now = Baseline.of(tally, origin) if origin and tally.pictures else None
    drift = compare(now, then) if now and then else None
    if drift and baseline:
        _say(drift, baseline)
        if report:
            drift.save(report)
    if save_baseline and now:
        now.save(save_baseline)
    if html:
        from imc_lite.gate.page import page, save_page

        save_page(html, page(tally, imc, ruled=bool(rules), drift=drift))
    if tally.unreadable and UNREADABLE not in words:
        sys.exit(BAD_INPUT)
    if tally.failed or (DRIFT in words and drift and drift.moved):
        sys.exit(FAILED)


def _with_bar(verdicts: Iterator[Judged], total: int) -> Iterator[Judged]:
    """The verdicts, and on a terminal how far they are, if there are several."""
    if total < 2:  # which spares a start the import
        yield from verdicts
        return
    from tqdm import tqdm

    with tqdm(total=total, unit="picture", file=sys.stderr, disable=None) as bar:
        for judged in verdicts:
            bar.update()
            yield judged


def _above_bar(total: int) -> AbstractContextManager[object]:
    """While it is open, what is written does not break the bar of `_with_bar`."""
    if total < 2:
        return nullcontext()
    from tqdm import tqdm

    above: AbstractContextManager[object] = tqdm.external_write_mode()
    return above


def _say(drift: Drift, baseline: Path) -> None:
    for line in drift.lines():
        click.echo(f"imc-lite: drift: {line}", err=True)
    if not drift.moved:
        sides = f"{drift.now.pictures:,} pictures now, {drift.then.pictures:,} then"
        click.echo(f"imc-lite: no drift from {shown(baseline)} ({sides})", err=True)


def _check_outputs(paths: list[Path | None], *inputs: Path | None) -> None:
    """Refuse, before anything is judged, what could not be written then or what is a picture or another file of the
    user's.

    Raises:
        ImcError: it is said which.
    """
    from imc_lite.files import check_output
    from imc_lite.gate.find import SUFFIXES

    given = [path for path in paths if path is not None]
    targets = {path: Path(os.path.realpath(path)) for path in given}
    for path in given:
        # `--csv *.png` takes the first picture for its output; a link may lead to one.
        if {path.suffix.lower(), targets[path].suffix.lower()} & SUFFIXES:
            raise ImcError(f"{shown(path)} is the name of a picture, not of an output; name another file")
        if sum(targets[other] == targets[path] for other in given) > 1:
            raise ImcError(f"{shown(path)} is given for two outputs; name another file for one of them")
        check_output(path, *inputs)
