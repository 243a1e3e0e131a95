"""What a bug report is told: the machine and the installation, nobody's name and no secret."""

import json
import os
import subprocess
import sys
from pathlib import Path


def env(*args: str, **variables: str) -> str:
    command = [sys.executable, "-m", "imc_lite", "env", *args]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **variables}, check=True)
    assert done.stderr == ""
    return done.stdout


def test_a_report_names_versions_and_no_owner(default_bundle):
    text = env(IMC_LITE_API_KEY="sesame", IMC_LITE_CACHE=str(default_bundle.parent))
    assert "sesame" not in text and "IMC_LITE_API_KEY" in text
    assert str(Path.home()) not in text
    found = json.loads(env("--json"))
    assert found["packages"]["numpy"] and found["python"].startswith(sys.version.split()[0])
    assert {"imc_lite", "platform", "cpu", "memory_mib", "onnxruntime_providers", "cache"} <= set(found)


def test_folders_of_somebodys_own_have_no_name():
    for name in ("XDG_CACHE_HOME", "IMC_LITE_CACHE"):
        variables = {"IMC_LITE_CACHE": "", name: str(Path.home() / "mustermann")}
        text = env(**variables)
        assert "mustermann" not in text and f"cache: folder as {name} says" in text


def test_who_has_no_home_gets_a_report():
    # Whose home it is, the real user says; what may be read, the effective one.
    code = "import os\nif os.geteuid() == 0: os.setreuid(54321, 0)\n"
    code += "from imc_lite.cli.env import describe\nprint(describe()['cache'])"
    for variables, said in (({}, "nowhere"), ({"XDG_CACHE_HOME": "/tmp/none"}, "as XDG_CACHE_HOME says")):
        kept = {k: v for k, v in os.environ.items() if k not in ("HOME", "IMC_LITE_CACHE", "XDG_CACHE_HOME")}
        done = subprocess.run(
            [sys.executable, "-c", code], env=kept | variables, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert said in done.stdout or os.geteuid() != 0  # who may not become another has a home


def test_it_imports_nothing_heavy():
    code = "import sys; from imc_lite.cli.env import describe; describe(); "
    code += "print(sorted({'torch', 'transformers', 'onnxruntime', 'ray'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
