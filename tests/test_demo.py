"""`imc-lite demo`: the page on a free port, opened in a browser."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request

import pytest

pytest.importorskip("uvicorn", reason="the server needs imc-lite[serve]")
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("wanted", [True, False])
def test_the_page_is_served_and_opened(default_bundle, tmp_path, wanted):
    opened, browser = tmp_path / "opened", tmp_path / "browser.sh"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" > {opened}.part && mv {opened}.part {opened}\n')
    browser.chmod(0o755)
    command = [sys.executable, "-m", "imc_lite", "demo", *([] if wanted else ["--no-browser"])]
    with (tmp_path / "log").open("w") as log:
        environment = {**os.environ, "BROWSER": f"{browser} %s"}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment)
    try:
        until = time.monotonic() + 60
        while (
            found := re.search(r"the page is (http://127\.0\.0\.1:\d+/)#demo", (tmp_path / "log").read_text())
        ) is None:
            assert process.poll() is None and time.monotonic() < until, (tmp_path / "log").read_text()
            time.sleep(0.05)
        with urllib.request.urlopen(found[1], timeout=30) as reply:
            assert reply.status == 200 and b"Try it" in reply.read()
        if wanted:
            while not opened.exists():
                assert time.monotonic() < until
                time.sleep(0.05)
            assert opened.read_text() == f"{found[1]}#demo"
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0 and out == b"" and opened.exists() == wanted
    finally:
        process.kill()
