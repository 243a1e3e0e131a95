"""The list of skips: what it names exists, and a skip outside it fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
LISTED = [
    line.split(" ", 1)[0]
    for line in (TESTS / "skips.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]


@pytest.mark.parametrize("node", sorted(set(LISTED)))
def test_what_the_list_names_exists(node):
    file, _, function = node.partition("::")
    text = (TESTS.parent / file).read_text(encoding="utf-8")
    assert not function or f"def {function.partition('[')[0]}(" in text


@pytest.mark.slow
def test_a_skip_outside_the_list_fails(tmp_path):
    (tmp_path / "test_single.py").write_text(
        "import pytest\n"
        "def test_skipped_inside(): pytest.skip('a whim')\n"
        "@pytest.mark.skipif(True, reason='a whim')\ndef test_skipped_by_mark(): pass\n"
        "@pytest.mark.xfail\ndef test_expected_to_fail(): assert False\n"
        "def test_sound(): pass\n"
    )
    (tmp_path / "test_whole_file.py").write_text("import pytest\npytest.skip('a whim', allow_module_level=True)\n")
    # On a build server (CI) pytest's summary says every reason a second time.
    env = {name: value for name, value in os.environ.items() if name not in ("CI", "BUILD_NUMBER", "PYTEST_ADDOPTS")}
    env |= {"IMC_LITE_ONLY_LISTED_SKIPS": "1", "PYTHONPATH": str(TESTS)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "conftest", "-p", "no:cacheprovider"]
    command += ["--continue-on-collection-errors"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=env, check=False)
    assert done.stdout.splitlines()[-1].startswith("2 failed, 1 passed, 2 errors in"), done.stdout
    assert done.stdout.count("which tests/skips.txt does not list\n") == 4
