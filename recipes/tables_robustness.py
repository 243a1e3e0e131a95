"""Tables of what noise costs and what comes back, from the committed result files."""

from __future__ import annotations

from committed import RESULTS, percent, read, robustness, with_interval

from imc_lite.bench import tables as bench
from imc_lite.bench.report import PICTURE


def result() -> str:
    """What IMC gives back, each share with its condition."""
    found = robustness()
    pictures = sum(source["pictures"] for source in found["data"]["sources"].values())

    def given_back(of: str, arm: str) -> tuple[str, str]:
        row = found["recovered"][of][PICTURE]["arms"][arm]
        conditions = sum(condition["of"] == of for condition in found["conditions"])
        return f"{row['conditions']} of {conditions}", f"**{with_interval(row['share'], row['share_95ci'])}**"

    (noises, pdc), (damages, sms) = given_back("image", "pdc"), given_back("text", "sms")
    others = read("generality")
    total, strange, apart = others["all"], read("unseen"), read("left_out")
    share = with_interval(apart["all"]["recovered"], apart["all"]["recovered_95ci"])
    harmed = [name for name, of in apart["kinds"].items() if of["all"]["gain_95ci"][1] < 0]
    worse = (
        f"answers about {' and '.join(harmed)} become worse: fit prototypes to yours, or switch PDC off"
        if harmed
        else "answers about none become worse beyond chance; prototypes fitted to yours give back more"
    )
    lines = [
        f"- Under {len(others['by_noise'])} kinds of image noise that other projects wrote, at sizes of 224 to 1,500 "
        f"pixels, {percent(total['noisy'])} of the questions are answered right, {percent(total['pdc'])} with PDC and "
        f"{percent(total['clean'])} about the clean picture: PDC gives back "
        f"**{with_interval(total['recovered'], total['recovered_95ci'])}** of what was lost, over "
        f"{others['pictures']} pictures which the model was not trained on "
        "([by noise, set and question](docs/measured.md#noise-made-by-other-programs)). Nothing was fitted to these "
        "noises, but choices were made while looking at them on training pictures, and three kinds of noise were added "
        "because an earlier run had shown them missing.",
        f"- Under {len(strange['by_noise'])} more, by which nothing was chosen and most of them without a name here, "
        f"it is {with_interval(strange['all']['recovered'], strange['all']['recovered_95ci'])}.",
        f"- About **kinds of picture that the prototypes were not fitted to** it is {share}, and {worse} "
        "([by kind](docs/measured.md#a-kind-of-picture-that-the-prototypes-never-saw)).",
        f"- Under noise of this project's own making, over the {noises} kinds and severities of noise that cost right "
        f"answers, it is {pdc}; over the {damages} of damage to the question that do, SMS gives back {sms}. Both are "
        f"of {pictures} pictures, and of questions that need the picture ([measured](docs/measured.md)).",
    ]
    return "\n".join(lines)


# Findings that the README names, by their names in the result file.
HEADLINES = {
    "pneumonia, child_cxr": "pneumonia in children",
    "tumour": "type of a brain tumour",
    "lesion": "melanoma or nevus",
}


def figures() -> str:
    """The README's few other figures."""
    named, asked, cost = read("perception"), read("answers")["groups"], read("runtime")
    found, repaired = robustness(), read("repair")["rows"]
    pictures = sum(source["pictures"] for source in found["data"]["sources"].values())
    unseen = named["unseen_called_unknown_or_clean"]
    template, closed, opened = (asked[name] for name in ("template (mean of kinds)", "vqa_rad closed", "vqa_rad open"))
    rows = read("findings")["rows"]
    seen = ", ".join(f"{what} {percent(rows[n]['own'])} ({percent(rows[n]['other'])})" for n, what in HEADLINES.items())
    clean = next(row for row in repaired if (row["tool"], row["kind"]) == ("imc-lite", "clean"))
    worse = (
        f"made significantly worse: {', '.join(found['worse'])}" if found["worse"] else "none is significantly worse"
    )
    costs = [(name, found["commands"]["answer"]) for name, found in cost["processors"].items()]
    spent = "; ".join(f"{of['seconds'][1]:.2f} s and {of['peak_mib']} MiB ({name})" for name, of in costs)
    lines = [
        f"Noise is named right in {percent(named['accuracy'])} of pictures, clean or with one of ten noises at "
        f"severities 2 to 5. Of noises that are in no bank, ghosting is called clean in "
        f"{percent(unseen['ghosting']['clean'])} of pictures, occlusion in {percent(unseen['occlusion']['clean'])}.",
        f"Clean input: {found['clean_pictures_with_identical_tokens']} of {pictures} pictures pass bit by bit, "
        f"{percent(clean['unchanged'] / clean['questions'])} of {clean['questions']} other questions unchanged. "
        f"Of the noises and severities measured, {worse} with IMC than without, beyond chance.",
        f"Looking: {percent(template['image'])} of template questions are answered right, {percent(template['blank'])} "
        f"with a blank picture. Findings that it was trained on, in other words and on other pictures (of other "
        f"patients, where these are known), and in brackets with another picture of the same set: {seen}.",
        f"Clinicians' own yes-or-no questions: {percent(closed['image'])}, open ones {percent(opened['image'])}: **do "
        "not rely on those answers** ([why](docs/measured.md#clean-pictures-and-questions)).",
        f"Cost of one `imc-lite answer` from start to exit, on one thread: {spent}.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def answers() -> str:
    groups = read("answers")["groups"]
    lines = ["| questions | n | right picture | blank | another case's |", "|---|---|---|---|---|"]
    for name, row in groups.items():
        cells = [name, str(row.get("n", ""))]
        for condition in ("image", "blank", "shuffled"):
            interval = row.get(f"{condition}_95ci")
            cells.append(with_interval(row[condition], interval) if interval else percent(row[condition]))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


# Rows of the table of findings by their names in the result file, in the order of the table.
FINDINGS = {
    "kind": "kind of picture",
    "pneumonia, child_cxr": "pneumonia in a child's chest film",
    "cause": "bacterial, viral or no pneumonia",
    "pneumonia, nih_cxr": "pneumonia in an adult's chest film (NIH)",
    "tumour": "glioma, meningioma or pituitary tumour",
    "lesion": "melanoma or nevus",
    "ulcer": "ulcer of a foot or none",
    "height": "ulcer in the upper or lower half",
    "side": "ulcer on the left or right",
    "size": "small or large ulcer",
    "nuclei": "number of nuclei, four ranges",
    "stain": "fluorescence, stain or brightfield",
    "not shown": "something that the picture does not show",
}


def findings() -> str:
    rows = read("findings")["rows"]
    lines = ["| question | n | right picture | another of its set | blank |", "|---|---|---|---|---|"]
    for name, title in FINDINGS.items():
        row = rows[name]
        cells = [with_interval(row[shown], row[f"{shown}_95ci"]) for shown in ("own", "other", "blank")]
        lines.append(f"| {title} | {row['n']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def headline() -> str:
    return bench.headline(robustness())


def noise() -> str:
    return bench.noise_table(robustness(), "image", PICTURE)


def questions() -> str:
    return bench.noise_table(robustness(), "text", PICTURE)


def controls() -> str:
    return bench.controls(robustness())


def ablation() -> str:
    found = read("maps")
    lines = []
    for what, title in (("rank", "rank of the map"), ("pictures", "pictures it is fitted on, rank 64")):
        left = found["token_error_left"][what]
        lines += ["", f"| {title} | {' | '.join(left)} |", "|---|" + "---|" * len(left)]
        lines.append(f"| token error left | {' | '.join(f'{v:.3f}' for v in left.values())} |")
    before, held = found["token_error_without_map"], found["pictures"]["held_out"]
    return "\n".join([*lines[1:], "", f"Without a map {before:.3f}; {held} held-out training pictures."])


def foreign() -> str:
    """Prototypes of radiology on blood films."""
    lines = ["| blood films | plain | with PDC | gain, points (95 % interval) |", "|---|---|---|---|"]
    for kind, row in read("foreign")["conditions"].items():
        low, high = (100 * v for v in row["gain_95ci"])
        gain = f"{100 * (row['pdc'] - row['plain']):+.1f} ({low:.1f} to {high:.1f})"
        lines.append(f"| {kind.replace('_', ' ')} | {percent(row['plain'])} | {percent(row['pdc'])} | {gain} |")
    return "\n".join(lines)


def perception() -> str:
    found = read("perception")
    lines = ["| picture | named right, severity 2-5 | strength, off by |", "|---|---|---|"]
    for kind, row in found["by_kind"].items():
        off = f"{found['strength_error'][kind]:.2f}" if kind in found["strength_error"] else ""
        lines.append(f"| {kind.replace('_', ' ')} | {with_interval(row['accuracy'], row['95ci'])} | {off} |")
    lines.append(f"| all | {with_interval(found['accuracy'], found['accuracy_95ci'])} | |")
    lines += ["", "| in no bank | called unknown | called clean |", "|---|---|---|"]
    for kind, row in found["unseen_called_unknown_or_clean"].items():
        lines.append(f"| {kind} | {percent(row['unknown'])} | {percent(row['clean'])} |")
    cost = found["milliseconds"]
    lines += ["", "| picture | encoder pass, ms | PDC adds, ms |", "|---|---|---|"]
    for name in ("clean", "motion_blur", "gaussian", "impulse"):
        lines.append(f"| {name.replace('_', ' ')} | {cost[f'{name}: encoder pass']} | {cost[f'{name}: added']} |")
    return "\n".join(
        [
            *lines,
            "",
            f"Expected calibration error {found['expected_calibration_error']:.3f}; clean pictures called unknown "
            f"{percent(found['clean_called_unknown'])}; severity within one step "
            f"{percent(found['severity_within_1'])}. How far the strength that is told lies from the severity that was "
            "put on, on average, at severities 1 to 5 where the kind is named right.",
        ]
    )


def repair() -> str:
    found = read("repair")
    by = {(r["tool"], r["kind"], r["severity"]): r for r in found["rows"]}
    tools = ("imc-lite", "symspellpy", "pyspellchecker")
    lines = [
        f"| damage | severity | {' | '.join(f'{t}: restored / intact words broken' for t in tools)} |",
        "|---|---|---|---|---|",
    ]
    for kind in ("typo", "ocr", "shorthand"):
        for severity in (2, 4):
            cells = []
            for tool in tools:
                row = by[tool, kind, severity]
                broken = f"{100 * row['broken'] / row['intact']:.2f} %"
                cells.append(f"{percent(row['restored'] / row['damaged'])} / {broken}")
            lines.append(f"| {kind} | {severity} | {' | '.join(cells)} |")
    cells = []
    for tool in tools:
        row = by[tool, "clean", 0]
        broken = f"{100 * row['broken'] / row['intact']:.2f} %"
        cells.append(f"{percent(row['unchanged'] / row['questions'])} unchanged / {broken}")
    lines.append(f"| none | – | {' | '.join(cells)} |")
    mine = [r for r in found["rows"] if r["tool"] == "imc-lite"]
    cost = found["cost"]
    return "\n".join(
        [
            *lines,
            "",
            f"{found['questions']} questions that were not trained on. Edits that break the meaning guard: "
            f"{sum(r['violations'] for r in mine)}. Median processor time of a repair: "
            f"{cost['repair_s_severity_2']:.2f} s at severity 2, {cost['repair_s_severity_4']:.2f} s at 4.",
        ]
    )


def upstream() -> str:
    """What restoring and repairing in front of a model gives back, over a quick run."""
    return _in_front("upstream")


def llama_server() -> str:
    """The same in front of llama-server."""
    return _in_front("llama_server")


def _in_front(folder: str) -> str:
    found = bench.load_results(RESULTS / folder)
    asked = sum(source["questions"] for source in found["data"]["sources"].values())
    pictures = sum(source["pictures"] for source in found["data"]["sources"].values())
    return f"{pictures} pictures, {asked} questions.\n\n{bench.headline(found)}"
