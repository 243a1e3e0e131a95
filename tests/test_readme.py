"""The README says what is true: its commands run, its tables and picture are current, its links lead somewhere."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```console\n(.*?)```", README, flags=re.S)
COMMANDS = [
    (command, output)
    for block in BLOCKS
    for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, flags=re.M)
]
# The set-up part (virtual environment, pip) is run by .ci/run; here the rest of the line is.
RUNNABLE = [(re.sub(r"^.*\.venv/bin/(?=imc-lite)", "", c), o) for c, o in COMMANDS if "imc-lite " in c]


def test_there_are_two_set_up_commands():
    assert len([c for c, _ in COMMANDS if "-m venv" in c]) == 2
    assert len(RUNNABLE) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("command", range(len(RUNNABLE)))
def test_commands_print_what_the_readme_says(command, default_bundle):
    line, output = RUNNABLE[command]
    line = re.sub(r"(^|&& )imc-lite ", rf"\1{sys.executable} -m imc_lite ", line)
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == output


@pytest.mark.slow
def test_python_example_runs(default_bundle):
    code = re.search(r"```python\n(.*?)```", README, flags=re.S).group(1)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"x-ray 0\.\d+\n", done.stdout)


def test_tables_and_plots_are_made_from_the_committed_results():
    sys.path.insert(0, str(ROOT / "recipes"))
    from tables import PAGES, fill, plots

    for name in PAGES:
        text = (ROOT / name).read_text(encoding="utf-8")
        assert fill(text) == text, f"{name} is stale, run: python recipes/tables.py"
        assert not re.search(r"<!-- (\w+) -->\n<!-- /\1 -->", text), f"{name} has an empty table"
    for name, svg in plots().items():
        assert (ROOT / name).read_bytes() == svg.encode(), f"{name} is stale, run: python recipes/tables.py"
        ElementTree.fromstring(svg)


@pytest.mark.slow
def test_the_picture_shows_what_the_model_says(default_bundle):
    sys.path.insert(0, str(ROOT / "recipes"))
    from readme_picture import PICTURE, run

    assert PICTURE.stat().st_size < 200_000
    with Image.open(PICTURE) as card:
        shown = json.loads(card.info["facts"])
    assert shown == run()[0], "docs/noisy_scan.png is stale, run: python recipes/readme_picture.py"
    alt = re.search(rf"!\[(.*)\]\({PICTURE.relative_to(ROOT)}\)", README).group(1)
    said = [
        shown[name] for name in ("asked", "repaired", "answer", "answer without PDC and SMS", "noise", "probability")
    ]
    assert all(word in alt for word in said)


def test_the_first_screen_says_how_far_it_can_be_trusted():
    first = "\n".join(README.splitlines()[:50])
    for words in ("this project's own making", "not measured with real weights", "never timed", "English"):
        assert words in first
    assert "not a medical device" in first
    # It is told the noise and measured on half the conditions: not a figure to stand over PDC's.
    assert "map alone" not in README


@pytest.mark.parametrize("page", [p.relative_to(ROOT) for p in ROOT.glob("**/*.md") if ".venv" not in p.parts])
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            assert (ROOT / page).parent.joinpath(target).exists(), target
