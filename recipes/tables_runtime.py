"""Tables of speed, memory and precision, from the committed result files."""

from __future__ import annotations

import csv

from committed import RESULTS, percent, read


def runtime() -> str:
    """Of every kind of processor: the decoder beside other runtimes, and commands from start to exit."""
    quantized, lines = read("quantization"), []

    def agreement(where: str) -> str:
        row = quantized[where]
        return f"{percent(row['top1_agreement'])} of {row['positions']} next tokens (KL {row['kl_mean']:.4f})"

    def cell(spread: list[float], digits: int) -> str:
        low, middle, high = (f"{value:.{digits}f}" for value in spread)
        return f"{middle} ({low}–{high})"

    for processor, found in read("runtime")["processors"].items():
        agreed = found["agreement"]
        lines += [
            f"{processor}, at commit {found['commit']}:",
            "",
            "| runtime, threads | weights, MiB | prefill, tokens/s | imc-lite's times that | decode, tokens/s | "
            "imc-lite's times that | weights read, of what a copy reads | same next token as float32 | KL |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for threads, table in found["threads"].items():
            for name, row in table.items():
                close = agreed[name]
                cells = [f"{name}, {threads}", f"{row['mib']:.0f}"]
                for what in ("prefill", "decode"):
                    cells += [cell(row[f"{what}_tokens_s"], 0), cell(row[f"{what}_ours_times"], 2)]
                cells += [percent(row["decode_share_of_memory"]), percent(close["same_next_token"])]
                cells.append(f"{close['kl']:.4f}" if "kl" in close else "–")
                lines.append(f"| {' | '.join(cells)} |")
        lines += [
            "",
            f"Prompts of {found['prefill_tokens']} tokens, {found['decode_tokens']} written; medians and the middle "
            f"90 % of {found['rounds']} rounds in turns; agreement over {agreed['texts']} questions. One thread that "
            f"copies memory reads {found['memory_copy_mib_s'] / 1024:.1f} GiB/s, and writes as much.",
            "",
            "| from start to exit, one thread | seconds | peak, MiB |",
            "|---|---|---|",
        ]
        lines += [
            f"| `imc-lite {name}` | {cell(cost['seconds'], 2)} | {cost['peak_mib']} |"
            for name, cost in found["commands"].items()
        ]
        lines.append("")
    old = read("runtime_avx2")
    return "\n".join(
        [
            *lines,
            f"On an {old['machine']['processor']} without VNNI, with an earlier version (runtime_avx2.json) and one "
            f"thread: {old['decode']['ratio_median']} times llama.cpp's pace in decoding, "
            f"{old['prefill']['ratio_median']} times in reading prompts; an answer takes "
            f"{old['answer']['seconds_median']} s.",
            "",
            f"With pictures, the 8-bit decoder agrees with float32 on {agreement('answer')} of the answers, and on "
            f"{agreement('all')} when the words of the questions are counted too.",
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


def wide() -> str:
    """How long remedies take to fit for wide towers."""
    found = read("wide")
    lines = ["| columns | tokens of a picture | processor time | from start to end | file | memory |", "|---" * 6 + "|"]
    for columns, row in found["columns"].items():
        times = (f"{row[name] / 60:.1f} min" for name in ("processor_seconds", "seconds"))
        sizes = (f"{row[name]:.1f} GiB" for name in ("scratch_gib", "peak_gib"))
        lines.append(f"| {' | '.join([columns, str(row['tokens_of_a_picture']), *times, *sizes])} |")
    return "\n".join([*lines, "", f"{found['pictures']} pictures under {found['conditions']} conditions each."])


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
    cost, memory, over = (found[k] for k in ("overhead", "memory", "over_the_queue"))
    first, last = memory["track"][0], memory["track"][-1]
    served = f"{over['statuses'].get('200', 0)} answered, {over['statuses'].get('429', 0)} told 429"
    lines = [
        f"| {found['workers']} workers, {found['machine']['cores']} cores "
        "| a single one | a second | p50 | p95 | lost, wrong |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {of['requests']} questions, {name} | {of['single_s_median']:.2f} s | {of['requests_per_second']} | "
        f"{of['p50_s']:.1f} s | {of['p95_s']:.1f} s | {of['lost']}, {of['wrong']} |"
        for name, of in found["loads"].items()
    ]
    lines += [
        "",
        "| | |",
        "|---|---|",
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


def proxy() -> str:
    """Calls of OpenAI's client through `--upstream`."""
    lines = [
        "| server | calls | the same | added, ms | before a stream's first chunk, ms | to all of a stream, ms |",
        "|---|---|---|---|---|---|",
    ]
    for name, of in read("proxy")["servers"].items():
        added = (of["added_ms_median"], of["added_before_the_first_chunk_ms_median"], of["added_to_a_stream_ms_median"])
        lines.append(f"| {name} | {of['calls']} | {of['same']} | {' | '.join(f'{ms:.0f}' for ms in added)} |")
    return "\n".join(lines)


def proxy_pictures() -> str:
    """The same with pictures."""
    lines = [
        "| server | calls | the same | added to a clean picture, ms | to a noisy one, ms |",
        "|---|---|---|---|---|",
    ]
    for name, of in read("proxy")["servers_with_pictures"].items():
        added = (of["added_ms_median_by_call"][call] for call in ("a clean picture", "a noisy picture"))
        lines.append(f"| {name} | {of['calls']} | {of['same']} | {' | '.join(f'{ms:.0f}' for ms in added)} |")
    return "\n".join(lines)


def archive() -> str:
    """The plan for a million pictures, from the cost of one."""
    found, count = read("archive"), 1_000_000
    one, pace, beside = found["case"], found["writer"]["rows_per_second"], found["side_by_side"]
    shared = one["model_mib"] + 15 * beside["mib_each_further_thread"]
    hours = count * one["cpu_s_mean"] / 3600
    read_gib = count * one["picture_kib_mean"] / 2**20
    lines = [
        "| for a million pictures, one question each | |",
        "|---|---|",
        f"| CPU time of a case | {one['cpu_s_mean']} s |",
        f"| core-hours | {hours:.0f} |",
        f"| machines of 16 cores to be done in a day | {-(-hours // (24 * 16)):.0f} |",
        f"| memory of such a machine for 16 models, an actor each | {16 * one['model_mib'] / 1024:.1f} GiB |",
        f"| the same, one actor with `--threads 16` | {shared / 1024:.1f} GiB |",
        f"| a batch with `--threads {beside['threads']}` | {beside['times_as_fast']:.2f} times as fast as with one |",
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
