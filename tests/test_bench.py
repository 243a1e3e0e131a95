"""The benchmark: real pictures, the real model, and runs that are killed."""

import base64
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from imc_lite import IMC, ImcError, load_image
from imc_lite.bench.benchmark import quick_cases
from imc_lite.bench.data import EDITION, Case, edition_facts, load_edition, load_folder
from imc_lite.bench.plan import KINDS, Options, Plan, Question, make_plan
from imc_lite.bench.plots import accuracy_plot
from imc_lite.bench.report import Report
from imc_lite.bench.stats import Bootstrap, interval
from imc_lite.bench.tables import compare, load_results, markdown

ROOT = Path(__file__).parent.parent
IMAGES = Path(__file__).parent / "images"
SMALL = ["--limit", "1", "--questions", "2", "--noise", "impulse", "--noise", "typo", "--severity", "4"]


def imc_lite(*args: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "imc_lite", *args]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def run(default_bundle, tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    """A finished run of three packaged pictures: its folder, and what the command printed."""
    out = tmp_path_factory.mktemp("bench") / "out"
    done = imc_lite("bench", *SMALL, "-o", str(out))
    assert done.returncode == 0, done.stderr
    return out, done


@pytest.fixture(scope="module")
def results(run) -> dict:
    return json.loads((run[0] / "results.json").read_text())


@pytest.mark.slow
def test_the_headline_is_on_stdout_and_progress_on_stderr(run):
    out, done = run
    assert "Clean cases: " in done.stdout and "conditions, about" not in done.stdout
    assert "6 of 6 conditions" in done.stderr and str(out) in done.stderr
    assert done.stdout.strip() in (out / "table.md").read_text()


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(run, tmp_path):
    command = [sys.executable, "-m", "imc_lite", "bench", *SMALL, "-o", str(tmp_path / "out")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    part = tmp_path / "out" / "parts" / "shuffled.json"
    while not part.exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out" / "results.json").exists()
    written = part.stat().st_mtime_ns
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "clean done" not in done.stderr and part.stat().st_mtime_ns == written
    for name in ("results.json", "table.md", "report.html"):
        assert (tmp_path / "out" / name).read_bytes() == (run[0] / name).read_bytes(), name
    assert not [p for p in (tmp_path / "out").rglob(".*")]


@pytest.mark.slow
def test_parts_of_another_run_are_refused(run):
    done = imc_lite("bench", *SMALL, "--seed", "1", "-o", str(run[0]))
    assert done.returncode == 2 and "other pictures" in done.stderr and done.stderr.count("\n") == 1


BAD = {
    "no output": ([], "-o"),
    "no folder": (["--data", "no/such", "-o", "OUT"], "is not a folder"),
    "no data set": (["--data", str(IMAGES), "-o", "OUT"], "no data set this knows"),
    "noise": (["--noise", "fog", "-o", "OUT"], "unknown noise 'fog'"),
    "severity": (["--severity", "9", "-o", "OUT"], "out of range"),
    "quick and data": (["--quick", "--data", ".", "-o", "OUT"], "--quick"),
    "a file as output": (["--limit", "1", "-o", __file__], "output folder"),
    "compare nothing": (["compare", "no.json", "no.json"], "holds no results"),
    "compare a text": (["compare", __file__, __file__], "holds no results"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_code_2(name, tmp_path, default_bundle):
    args, why = BAD[name]
    done = imc_lite("bench", *(str(tmp_path / "o") if a == "OUT" else a for a in args))
    assert done.returncode == 2 and done.stdout == "", done.stderr
    assert why in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "o").exists()


@pytest.mark.slow
def test_nothing_heavy_is_imported(run):
    """The run is finished, so this only takes its parts up, writes the report, and opens the model."""
    code = "import sys; from imc_lite.cli.main import cli; "
    code += f"cli.main(['bench', *{SMALL!r}, '-o', {str(run[0])!r}], standalone_mode=False); "
    code += "print(sorted({'torch', 'transformers', 'triton', 'onnx', 'matplotlib', 'scipy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_results_have_the_documented_fields(results, counted):
    text = (ROOT / "docs" / "bench.md").read_text(encoding="utf-8").split("## results.json")[1]
    documented = set(re.findall(r"^\| `([^`]+)`", text, flags=re.M))
    assert fields(counted) == documented
    assert fields(results) <= documented


def fields(value, path: tuple[str, ...] = ()) -> set[str]:
    """Paths of a JSON value, with * for what is named by the run: groups, arms, scopes, sources, noises, packages."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return set().union(*(fields(v, (*path[:-1], f"{path[-1]}[]")) for v in value))
    if not isinstance(value, dict):
        return {".".join(path)}
    named = path[-1:] and path[-1] in ("groups", "arms", "sources", "versions", "confusion", "image", "text")
    named = named or path[-2:] == ("confusion", "*") or path == ("conditions[]", "arms", "*")
    return set().union(*(fields(v, (*path, "*" if named else k)) for k, v in value.items()))


@pytest.mark.slow
def test_figures_are_consistent(results):
    names = [(c["noise"], c["severity"]) for c in results["conditions"]]
    assert names == [("clean", 0), ("impulse", 4), ("typo", 4)]
    for condition in results["conditions"]:
        for cells in condition["arms"].values():
            for cell in cells.values():
                low, high = cell["95ci"]
                assert 0 <= low <= cell["accuracy"] <= high <= 1 and cell["n"] > 0
    impulse = results["conditions"][1]["arms"]
    assert set(impulse) == {"plain", "shift", "pdc", "sms", "imc", "restore"}
    assert sum(n["pictures"] for n in results["data"]["sources"].values()) == 3
    assert sum(results["confusion"]["impulse"].values()) == 3
    questions = sum(n["questions"] for n in results["data"]["sources"].values())
    assert sum(row["n"] for row in results["groups"].values()) == questions


@pytest.mark.slow
def test_judging_agrees_with_generating(default_model):
    """One masked pass says what greedy decoding would have answered."""
    pairs = [
        ("What modality is this?", "x-ray"),
        ("What modality is this?", "mri"),
        ("What body part is shown?", "chest"),
        ("Is this a CT scan?", "no"),
        ("In what plane was this image taken?", "axial"),
    ]
    for picture in sorted(IMAGES.glob("*.jpg"))[:3]:
        tokens = default_model.perceive(load_image(picture)).tokens
        said = [default_model.generate(question, tokens).text == answer for question, answer in pairs]
        assert default_model.agrees(pairs, tokens) == said
        assert default_model.agrees(pairs[:1], tokens) == said[:1]
    blind = [default_model.generate(question, None).text == answer for question, answer in pairs]
    assert default_model.agrees(pairs, None) == blind


@pytest.mark.slow
def test_judging_many_questions_takes_several_passes(default_model):
    tokens = default_model.perceive(load_image(IMAGES / "synpic28602.jpg")).tokens
    pairs = [("What modality is this?", "x-ray"), ("What modality is this?", "ct")]
    assert default_model.agrees(pairs * 35, tokens) == default_model.agrees(pairs, tokens) * 35


def test_a_treated_picture_is_the_one_that_answering_sees(default_bundle):
    imc = IMC.from_pretrained()
    pixels = load_image(IMAGES / "synpic28602.jpg")
    perception = imc.model.perceive(pixels)
    assert np.array_equal(imc.see(pixels, perception).tokens, imc.see(pixels).tokens)


def test_a_plan_depends_on_the_seed_alone():
    cases = load_edition()
    whole, part = make_plan(cases, Options()), make_plan(cases, Options(limit=3))
    assert whole.fingerprint() == make_plan(cases, Options(noises=("typo",), severities=(5,))).fingerprint()
    assert whole.fingerprint() != make_plan(cases, Options(seed=1)).fingerprint()
    # Fewer pictures are some of the same, with the same questions and the same noise.
    asked = {(whole.cases[q.picture].name, q.text, whole.seed(q.picture)) for q in whole.questions}
    assert {(part.cases[q.picture].name, q.text, part.seed(q.picture)) for q in part.questions} <= asked
    assert [q.picture for q in whole.questions] == sorted(q.picture for q in whole.questions)
    assert len(whole.image_conditions) == 14 and len(whole.text_conditions) == 8 and len(KINDS) == 11
    with pytest.raises(ImcError, match="too few"):
        make_plan(cases[:2], Options())


def test_the_edition_is_small_whole_and_licensed():
    files = [p for p in EDITION.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 8_000_000
    cases = load_edition()
    named = {c.path for c in cases} | {EDITION / "bench.json", EDITION / "LICENSE"}
    assert set(files) == named
    assert {c.source for c in cases} == {"vqa_rad", "bccd", "hannover_cxr"}
    for case in cases:
        with Image.open(case.path) as picture:
            assert picture.format == "JPEG" and max(picture.size) <= 640
    licence = (EDITION / "LICENSE").read_text(encoding="utf-8")
    for words in ("CC0 1.0", "MIT", "Creative Commons", "Attribution 3.0", "Hannover Medical", "Changes: resized"):
        assert words in licence, words
    assert len(quick_cases()) == len(edition_facts()["quick"]) == 20
    assert edition_facts()["held_out"] == {Path(c.name).name for c in cases if c.source == "vqa_rad"}


def test_packaging_carries_the_edition(tmp_path):
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    built, there = tmp_path / "imc_lite" / "assets" / "bench", EDITION
    names = [{str(p.relative_to(at)) for p in at.rglob("*") if p.is_file()} for at in (built, there)]
    assert names[0] == names[1]
    assert (tmp_path / "imc_lite" / "bench" / "run.py").exists()


def test_vqa_rad_as_published(tmp_path):
    folder = tmp_path / "VQA_RAD Image Folder"
    folder.mkdir()
    shutil.copy(IMAGES / "synpic28602.jpg", folder)
    row = {
        "qid": 1, "phrase_type": "test_freeform", "image_name": "synpic28602.jpg", "image_organ": "CHEST",
        "question": "Is the trachea  midline?", "question_type": "PRES", "answer": "Yes", "answer_type": "CLOSED ",
    }  # fmt: skip
    rows = [
        row,
        {**row, "question": "How many ribs?", "answer": 12, "answer_type": "OPEN"},
        {**row, "image_name": "synpic00000.jpg"},
    ]
    (tmp_path / "VQA_RAD Dataset Public.json").write_text(json.dumps(rows))
    (case,) = load_folder(tmp_path)
    assert (case.source, case.name, case.labels["organ"]) == ("vqa_rad", "synpic28602.jpg", "chest")
    assert case.questions[0] == {
        "question": "Is the trachea midline?", "answer": "yes", "closed": True, "type": "PRES"
    }  # fmt: skip
    assert case.questions[1]["answer"] == "12" and not case.questions[1]["closed"]


def test_slake_as_published(tmp_path):
    for name in ("xmlab1", "xmlab2"):
        (tmp_path / "imgs" / name).mkdir(parents=True)
        shutil.copy(IMAGES / "synpic28602.jpg", tmp_path / "imgs" / name / "source.jpg")
    row = {
        "img_id": 1, "img_name": "xmlab1/source.jpg", "question": "Which part is shown?", "answer": "Chest",
        "q_lang": "en", "location": "Lung", "modality": "X-Ray", "answer_type": "OPEN", "base_type": "vqa",
        "content_type": "Organ", "triple": ["vhead", "_", "_"], "qid": 1,
    }  # fmt: skip
    rows = [
        row,
        {**row, "q_lang": "zh", "question": "图像中显示的是哪部分？"},
        {**row, "img_name": "xmlab2/source.jpg", "question": "Is it healthy?", "answer": "No", "answer_type": "CLOSED"},
    ]
    (tmp_path / "test.json").write_text(json.dumps(rows), encoding="utf-8")
    first, second = load_folder(tmp_path)
    assert [c.name for c in (first, second)] == ["xmlab1/source.jpg", "xmlab2/source.jpg"]
    assert first.questions == (
        {"question": "Which part is shown?", "answer": "chest", "closed": False, "type": "Organ"},
    )
    assert second.questions[0]["closed"]
    cases = [Case(c.path, "slake", {}, c.questions) for c in (first, second)] * 2
    plan = make_plan(cases, Options())
    assert {q.group for q in plan.questions} == {"slake open", "slake closed"}


def test_the_layout_of_the_recipes(tmp_path):
    (tmp_path / "bccd" / "images").mkdir(parents=True)
    shutil.copy(IMAGES / "synpic28602.jpg", tmp_path / "bccd" / "images" / "a.jpg")
    row = {"image": "a.jpg", "rbc": 1, "wbc": 0, "platelets": 0, "boxes": [["rbc", 0.1, 0.1, 0.3, 0.3]]}
    rows = [{**row, "split": "test"}, {**row, "split": "train"}]
    (tmp_path / "bccd" / "labels.json").write_text(json.dumps(rows))
    assert [c.source for c in load_folder(tmp_path)] == ["bccd"]
    (tmp_path / "bccd" / "images" / "a.jpg").unlink()
    with pytest.raises(ImcError, match="is missing"):
        load_folder(tmp_path)
    (tmp_path / "bccd" / "labels.json").write_text("[{]")
    with pytest.raises(ImcError, match="cannot be read"):
        load_folder(tmp_path)


def test_bootstrap_is_paired_and_covers():
    rng = np.random.default_rng(0)
    owners = np.repeat(np.arange(40), 3)
    hits = (rng.random(120) < 0.7).astype(float)
    bootstrap = Bootstrap(40, 0)
    samples = bootstrap.means(hits, owners)
    low, high = np.percentile(samples, (2.5, 97.5))
    assert np.allclose([low, high], interval(hits, owners, np.random.default_rng(1)), atol=0.03)
    assert np.allclose(bootstrap.means(hits + 0.25, owners) - samples, 0.25)
    # A group of one picture is missing from some samples.
    assert np.isnan(bootstrap.means(np.ones(1), np.zeros(1, int))).any()


@pytest.fixture(scope="module")
def counted(default_model) -> dict:
    """Ten pictures, two questions each; noise takes 8 of 20 answers, IMC gives 6 of them back."""
    cases = tuple(Case(IMAGES / "synpic28602.jpg", "slake", {}, ()) for _ in range(10))
    questions = tuple(Question(i // 2, "slake", False, "q", "a", True) for i in range(20))
    plan = Plan(cases, questions, Options(noises=("impulse", "typo"), severities=(4,)))
    clean, noisy, mended = "1" * 20, "10" * 8 + "1111", "10" * 2 + "1" * 16
    four = {"plain": clean, "pdc": clean, "sms": clean, "imc": clean}
    verdicts = [["clean", 0]] * 10
    parts = {
        "clean": {"hits": four, "verdicts": verdicts, "identical": 10, "repaired": {}},
        **{name: {"hits": {"plain": "0" * 20}} for name in ("blank", "shuffled", "text_only")},
        "impulse 4": {
            "hits": {"plain": noisy, "shift": noisy, "pdc": mended, "sms": noisy, "imc": mended},
            "verdicts": [["impulse", 4]] * 9 + [["clean", 0]],
        },
        "typo 4": {"hits": {"plain": "1-" * 10, "pdc": "1-" * 10, "sms": "0-" * 10, "imc": "0-" * 5 + "1-" * 5}},
    }
    # A loss under text noise as well, so that every field occurs.
    parts["typo 4"]["hits"]["plain"] = "0-" * 6 + "1-" * 4
    return Report(plan, parts, default_model).to_dict()


def test_recovered_share_is_what_came_back_of_what_was_lost(counted):
    assert counted["groups"]["slake open"]["needs_picture"]
    cell = counted["conditions"][1]["arms"]["imc"]["picture"]
    assert (cell["n"], cell["accuracy"], cell["gain"], cell["recovered"]) == (20, 0.9, 0.3, 0.75)
    assert counted["conditions"][1]["named"] == 0.9
    image, text = (counted["recovered"][of]["picture"] for of in ("image", "text"))
    assert image["significant"] == ["impulse 4"] and text["significant"] == ["typo 4"]
    share = image["arms"]["imc"]
    assert share["share"] == share["mean_of_conditions"] == 0.75
    assert share["share_95ci"][0] < 0.75 < share["share_95ci"][1]
    assert counted["confusion"]["impulse"] == {"clean": 1, "impulse": 9}
    assert "| impulse | 4 | 20 | 60.0" in markdown(counted)


def test_the_plot_stands_alone_and_shows_every_condition(counted):
    drawn = ElementTree.fromstring(accuracy_plot(counted))
    said = [e.text for e in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {"impulse", "typo", "clean 100.0", "+30.0", "+10.0"} <= set(said)
    assert len(list(drawn.iter("{http://www.w3.org/2000/svg}circle"))) == 4
    right = float(drawn.get("viewBox").split()[2])
    assert all(0 <= float(c.get("cx")) <= right for c in drawn.iter("{http://www.w3.org/2000/svg}circle"))


def test_harm_is_named(counted):
    """Repair turns four right answers into wrong ones: a tenth question each, on the questions that were asked."""
    cell = counted["conditions"][2]["arms"]["sms"]["picture"]
    assert (cell["n"], cell["gain"]) == (10, -0.4) and cell["gain_95ci"][1] < 0
    assert counted["worse"] == ["typo 4: sms, picture"]
    assert "typo 4: sms, picture" in markdown(counted)


@pytest.mark.slow
def test_compare(run, results, tmp_path):
    done = imc_lite("bench", "compare", str(run[0]), str(run[0] / "results.json"))
    assert done.returncode == 0 and "are the same" in done.stdout and "+0.0" in done.stdout
    (tmp_path / "results.json").write_text(json.dumps({**results, "format": 0}))
    with pytest.raises(ImcError, match="another format"):
        load_results(tmp_path)
    with pytest.raises(ImcError, match="no condition in common"):
        compare(results, {**results, "conditions": []})


@pytest.mark.slow
def test_the_report_is_self_contained(run):
    html = (run[0] / "report.html").read_text(encoding="utf-8")
    assert not re.findall(r'(?:src|href)="(?!data:)', html) and "<script" not in html
    pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', html)
    for data in pictures:
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            picture.load()
            assert max(picture.size) <= 240
    assert html.count("<svg") >= 1 and html.count("<h2>") == 7


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium installed")
@pytest.mark.parametrize("width", [1100, 420])
def test_the_report_in_a_browser(run, tmp_path, width):
    """Pictures load, nothing is wider than the window, and there is something to see."""
    page = run[0] / "report.html"
    probe = tmp_path / "probe.html"
    check = (
        "<script>onload=()=>{const d=document.documentElement,bad=[...document.images].filter(i=>!i.naturalWidth);"
        "document.title=`wide ${d.scrollWidth-d.clientWidth} broken ${bad.length}`}</script></body>"
    )
    probe.write_text(page.read_text(encoding="utf-8").replace("</body>", check), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    flags += [f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},1400", "--hide-scrollbars"]
    shot = tmp_path / "shot.png"
    browse = [CHROMIUM, *flags, "--dump-dom", probe.as_uri()]
    dom = subprocess.run(browse, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "<title>wide 0 broken 0</title>" in dom
    browse = [CHROMIUM, *flags, f"--screenshot={shot}", page.as_uri()]
    subprocess.run(browse, capture_output=True, timeout=60, check=True)
    pixels = np.asarray(Image.open(shot).convert("L"))
    assert pixels.shape[1] == width
    assert 0.02 < (pixels < 200).mean() < 0.6


COMMITTED = ROOT / "recipes" / "results" / "bench"


@pytest.mark.skipif(not COMMITTED.exists(), reason="no full run is committed")
def test_the_committed_table_is_made_from_the_committed_results():
    results = load_results(COMMITTED)
    assert (COMMITTED / "table.md").read_text(encoding="utf-8") == markdown(results)
    assert {c["noise"] for c in results["conditions"]} == {"clean", *KINDS}


def test_the_edition_is_what_the_recipe_makes(tmp_path):
    data = os.environ.get("IMC_LITE_DATA")
    if data is None:
        pytest.skip("IMC_LITE_DATA names no data folder")
    command = [sys.executable, str(ROOT / "recipes" / "build_bench.py"), "--data", data, "-o", str(tmp_path)]
    subprocess.run(command, check=True)
    assert (tmp_path / "bench.json").read_bytes() == (EDITION / "bench.json").read_bytes()
