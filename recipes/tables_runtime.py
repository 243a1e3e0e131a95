"""Tables of speed, memory and precision, from the committed result files."""

from __future__ import annotations

import csv

from committed import RESULTS, percent, read


def runtime() -> str:
    run, quantized = read("runtime"), read("quantization")

    def agreement(where: str) -> str:
        row = quantized[where]
        return f"{percent(row['top1_agreement'])} of {row['positions']} next tokens (KL {row['kl_mean']:.4f})"

    cost, machine = run["answer"], run["machine"]
    lines = ["| measure | imc-lite | llama.cpp, same base model | ratio |", "|---|---|---|---|"]
    for name in ("prefill", "decode"):
        row = run[name]
        lines.append(
            f"| {name}, tokens/s | {row['imc_lite_tokens_s']} | {row['llama_cpp_tokens_s']} | {row['ratio_median']} |"
        )
    return "\n".join(
        [
            *lines,
            "",
            f"One thread, {machine['processor']}. One `imc-lite answer` from start to exit: "
            f"{cost['seconds_median']} s, {cost['peak_mib']} MiB at the peak. The 8-bit decoder agrees with float32 on "
            f"{agreement('answer')} of the answers, and on {agreement('all')} when the words of the questions are "
            "counted too.",
        ]
    )


def encoder() -> str:
    found = read("encoder")
    lines = [
        "| encoder | ms a pass | times float32 | times PyTorch | noise named right | change, points | token error |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in found["encoders"].items():
        cells = [f"{row['ms'][1]:.1f}"]
        if "named" in row:
            low, high = (100 * v for v in row["named"]["change_95ci"])
            cells += [f"{row[t][1]:.2f} ({row[t][0]:.2f}–{row[t][2]:.2f})" for t in ("times_float32", "times_torch")]
            change = f"{100 * row['named']['change']:+.1f} ({low:.1f} to {high:.1f})"
            cells += [percent(row["named"]["right"]), change, f"{row['token_error']:.3f}"]
        cells += ["–"] * (6 - len(cells))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    asked, shipped = found["answers"], found["shipped"]
    said = asked[shipped]
    low, high = (100 * v for v in said["change_95ci"])
    size = [found["encoders"][name]["mib"] for name in ("float32", shipped)]
    machine = f"{found['machine']['processor']}{' with VNNI' if found['machine']['vnni'] else ''}"
    return "\n".join(
        [
            *lines,
            "",
            f"Medians and the middle 90 % of {found['rounds']} rounds, one thread, {machine}; "
            f"{found['pictures']['measured']} packaged pictures that the ranges were not taken from. "
            f'`--precision int8` writes "{shipped}": {size[1]} MiB instead of {size[0]}. Template questions through '
            f"IMC, clean and under three noises at severity 4: {percent(asked['float32'])} right in float32, "
            f"{percent(said['right'])} in 8 bits, a change of {100 * said['change']:+.1f} points ({low:.1f} to "
            f"{high:.1f}).",
        ]
    )


def hf() -> str:
    found = read("hf")
    spent = found["milliseconds"]
    lines = ["| part of an answer | ms |", "|---|---|", *(f"| {name} | {ms} |" for name, ms in spent.items())]
    share = 100 * found["share of PDC"]
    said = (
        f"{found['device']}, language model {found['language model']}: matching and calibrating take {share:.2f} % of "
        f"the time, {found['peak memory, MiB']:,} MiB at the peak."
    )
    return "\n".join([*lines, "", said])


def portability() -> str:
    found = read("portability")
    lines = ["| encoder run by | verdicts that differ | largest difference of a statistic |", "|---|---|---|"]
    for name, row in found["ways"].items():
        differ = f"{row['verdicts that differ']} of {found['views']}"
        lines.append(f"| {name} | {differ} | {row['largest difference of a statistic']:.1e} |")
    return "\n".join(lines)


def export() -> str:
    found = read("export")
    lines = [
        "| family | language model | tower, largest difference | projector | greedy tokens as torch's | KL, nats |",
        "|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        share = f"{percent(row['agreement'])} of {row['greedy tokens']:.0f}"
        cells = [row["family"], row["precision"], f"{row['tower']:.1e}", f"{row['projector']:.1e}", share]
        lines.append(f"| {' | '.join(cells)} | {row['kl']:.1e} |")
    return "\n".join(lines)


def server() -> str:
    found = read("server")
    cost, loaded, memory, over = (found[k] for k in ("overhead", "at_once", "memory", "over_the_queue"))
    first, last = memory["track"][0], memory["track"][-1]
    served = f"{over['statuses'].get('200', 0)} answered, {over['statuses'].get('429', 0)} told 429"
    lines = [
        f"| {found['workers']} workers, {found['machine']['cores']} cores | |",
        "|---|---|",
        f"| {loaded['requests']} questions at once | {loaded['lost']} lost, {loaded['wrong']} wrong |",
        f"| their time, p50 / p95 | {loaded['p50_s']:.0f} s / {loaded['p95_s']:.0f} s |",
        f"| a single question, median | {loaded['single_s_median']} s |",
        f"| questions a second | {loaded['requests_per_second']} |",
        f"| memory after {first['requests']} requests and after {last['requests']:,} | "
        f"{first['mib']:.0f} MiB, {last['mib']:.0f} MiB ({percent(memory['growth'])} more); {memory['wrong']} wrong |",
        f"| {over['requests']} at once, one worker, `--queue {over['queue']}` | {served} |",
        f"| one question over HTTP / from Python, by turns, median | {cost['server_ms_median']:.0f} ms / "
        f"{cost['python_ms_median']:.0f} ms |",
        f"| of it outside the report's `total`, client included, median | {cost['outside_the_report_ms_median']} ms |",
    ]
    before, after = found["machine"]["load_average_before_and_after"]
    shared = f"Load average of the machine {before} before and {after} after."
    return "\n".join([*lines, "", shared])


def archive() -> str:
    """The plan for a million pictures, from the cost of one."""
    found, count = read("archive"), 1_000_000
    one, pace = found["case"], found["writer"]["rows_per_second"]
    hours = count * one["cpu_s_mean"] / 3600
    read_gib = count * one["picture_kib_mean"] / 2**20
    lines = [
        "| for a million pictures, one question each | |",
        "|---|---|",
        f"| CPU time of a case | {one['cpu_s_mean']} s |",
        f"| core-hours | {hours:.0f} |",
        f"| machines of 16 cores to be done in a day | {-(-hours // (24 * 16)):.0f} |",
        f"| memory of such a machine for its 16 models | {16 * one['model_mib'] / 1024:.0f} GiB |",
        f"| pictures read, at {one['picture_kib_mean']:.0f} KiB each | {read_gib:.0f} GiB |",
        f"| rows written, at {one['row_bytes_mean']} bytes each | {count * one['row_bytes_mean'] / 2**20:.0f} MiB |",
        f"| the writer alone, at {pace} rows/s | {count / pace / 3600:.1f} h |",
        f"| cores that the writer keeps up with | {pace * one['cpu_s_mean']:.0f} |",
    ]
    return "\n".join(lines)


def kernels() -> str:
    with open(RESULTS / "kernels.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = {(r["tower"], r["batch"], r["dtype"], r["op"], r["provider"]): r for r in rows}
    lines = [
        "| tower, tokens × width | batch | operator | Triton, µs | PyTorch | compiled | of a copy's bytes/s |",
        "|---|---|---|---|---|---|---|",
    ]
    for key in found:
        tower, batch, dtype, op, provider = key
        if provider != "triton" or dtype != "bfloat16" or batch == "8":
            continue
        ours, eager, compiled = (found[(*key[:4], name)] for name in ("triton", "eager", "compile"))
        p20, p50, p80 = (float(ours[name]) for name in ("p20_us", "p50_us", "p80_us"))
        times = " | ".join(f"{float(row['p50_us']):.0f}" for row in (eager, compiled))
        share = percent(float(ours["of_copy"]))
        sizes = f"{tower}, {ours['tokens']} × {ours['width']}"
        lines.append(f"| {sizes} | {batch} | {op} | {p50:.0f} ({p20:.0f}–{p80:.0f}) | {times} | {share} |")
    towers = ", ".join(
        f"{r['tower']} {float(r['p50_us']) / 1000:.1f}" for r in rows if r["op"] == "tower" and r["dtype"] == "bfloat16"
    )
    first = rows[0]
    return "\n".join(
        [
            *lines,
            "",
            f"{first['device']}, PyTorch {first['torch']}, Triton {first['triton']}, bfloat16, medians with the middle "
            f"60 % in brackets. The tower's own pass over one picture, random weights, ms: {towers}.",
        ]
    )
