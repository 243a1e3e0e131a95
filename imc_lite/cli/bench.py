"""`imc-lite bench`: what noise costs a model, and what IMC gives back."""

from __future__ import annotations

from pathlib import Path

import click

from imc_lite.cli.options import ModelChoice, Within, model_options
from imc_lite.errors import ImcError


@click.group(invoke_without_command=True)
@click.option("--data", type=click.Path(path_type=Path), multiple=True, help="Folder of a data set; may be repeated.")
@click.option("--noise", "noises", multiple=True, help="gaussian, …, typo, …; may be repeated [all eleven].")
@click.option("--noise-from", metavar="FILE.py", help="Image noise of others, alone unless --noise names more too.")
@click.option("--severity", "severities", type=int, multiple=True, help="1-5; may be repeated [2 and 4].")
@click.option("--limit", type=click.IntRange(1), help="At most so many pictures of each source.")
@click.option("--questions", type=click.IntRange(1), default=4, show_default=True, help="Own questions of a picture.")
@click.option("--quick", is_flag=True, help="32 packaged pictures at severity 4: a few minutes.")
@click.option(
    "--arms",
    type=click.Choice(["all", "plain"]),
    default="all",
    show_default=True,
    help="plain: the model as it is, which needs no prototypes.",
)
@click.option("--upstream", metavar="URL", help="Another server of OpenAI's API answers, such as Ollama's.")
@click.option("--upstream-model", metavar="NAME", help="The model to ask there.  [default: the upstream's choice]")
@click.option("--timeout", type=Within(1, 3600), help="Seconds an answer of the upstream has.  [default: 60]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder to write; an unfinished run goes on.")
@click.option("--prototypes", type=click.Path(path_type=Path), help="Your own, from `prototypes build`.")
@model_options
@click.pass_context
def bench(
    context: click.Context,
    data: tuple[Path, ...],
    noises: tuple[str, ...],
    noise_from: str | None,
    severities: tuple[int, ...],
    limit: int | None,
    questions: int,
    quick: bool,
    arms: str,
    upstream: str | None,
    upstream_model: str | None,
    timeout: float | None,
    seed: int,
    output: Path | None,
    prototypes: Path | None,
    choice: ModelChoice,
) -> None:
    """Measure what noise costs a model and what IMC gives back; the headline on stdout, the rest in a folder.

    \b
    imc-lite bench --quick -o bench/
    imc-lite bench -m org/model --arms plain -o bench/
    imc-lite bench --quick --upstream http://127.0.0.1:11434/v1 --upstream-model medgemma -o bench/
    imc-lite bench --data VQA_RAD/ --noise gaussian --severity 4 -o bench/
    imc-lite bench compare before/ after/
    """
    if context.invoked_subcommand is not None:
        return
    if output is None:
        raise click.UsageError("name the folder to write with -o.")
    if upstream is None and (upstream_model is not None or timeout is not None):
        raise click.UsageError("--upstream-model and --timeout go with --upstream.")
    if quick and data:
        raise click.UsageError("--quick takes the packaged pictures; leave --data out.")
    from imc_lite.bench.benchmark import quick_cases, run_benchmark
    from imc_lite.bench.data import load_edition, load_folder
    from imc_lite.bench.generators import load_generators
    from imc_lite.bench.plan import KINDS, Options, make_plan
    from imc_lite.bench.tables import headline
    from imc_lite.noise.image import FURTHER_KINDS

    generators = load_generators(noise_from, taken=(*KINDS, *FURTHER_KINDS)) if noise_from is not None else ()
    all_of_them = tuple(g.name for g in generators) or KINDS
    options = Options(
        noises=tuple(k for k in KINDS if k in noises) + tuple(k for k in noises if k not in KINDS) or all_of_them,
        generators=generators,
        severities=tuple(sorted(set(severities))) or ((4,) if quick else (2, 4)),
        limit=limit,
        questions=questions,
        seed=seed,
        plain=arms == "plain",
    )
    cases = quick_cases() if quick else [c for folder in data for c in load_folder(folder)] or load_edition()
    make_plan(cases, options)  # refuse what cannot be run before a model is fetched or loaded
    imc = choice.open(
        pdc=not options.plain,
        sms=not options.plain,
        prototypes=prototypes,
        upstream=upstream,
        upstream_model=upstream_model,
        upstream_timeout=timeout,
    )
    if imc.prototypes is None and not options.plain:
        raise ImcError(
            f"{choice.model} was opened without noise prototypes, and there is nothing to compare; build them: "
            "imc-lite prototypes build, then give --prototypes; or measure the plain model: --arms plain"
        )
    results = run_benchmark(imc, cases, options, output)
    click.echo(headline(results))
    click.echo(f"imc-lite: wrote {output / 'results.json'}, table.md and report.html beside it", err=True)


@bench.command()
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
def compare(first: Path, second: Path) -> None:
    """Two runs beside each other: FIRST and SECOND are output folders or their results.json.

    \b
    imc-lite bench compare before/ after/
    """
    from imc_lite.bench.tables import compare as table
    from imc_lite.bench.tables import load_results

    click.echo(table(load_results(first), load_results(second)), nl=False)


@bench.command()
@click.option("--data", type=click.Path(path_type=Path), multiple=True, help="Folder of a data set; may be repeated.")
@click.option("--noise", "noises", multiple=True, help="gaussian, …, typo, …; may be repeated [all eleven].")
@click.option("--severity", "severities", type=int, multiple=True, help="1-5; may be repeated [2 and 4].")
@click.option("--limit", type=click.IntRange(1), help="At most so many pictures of each source.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder to make.")
def tasks(
    data: tuple[Path, ...],
    noises: tuple[str, ...],
    severities: tuple[int, ...],
    limit: int | None,
    seed: int,
    output: Path,
) -> None:
    """Write the benchmark's conditions as tasks of lmms-eval, for any model that it knows; their names on stdout.

    \b
    imc-lite bench tasks --noise gaussian --severity 4 -o tasks/
    python -m lmms_eval --include_path tasks/ --tasks imc_noise --model MODEL
    """
    from imc_lite.bench.data import load_edition, load_folder
    from imc_lite.bench.plan import KINDS, Options, make_plan
    from imc_lite.bench.tasks import write_tasks

    chosen = tuple(sorted(set(severities))) or (2, 4)
    options = Options(noises=noises or KINDS, severities=chosen, limit=limit, seed=seed)
    cases = [c for folder in data for c in load_folder(folder)] or load_edition()
    for name in write_tasks(make_plan(cases, options), output):
        click.echo(name)
