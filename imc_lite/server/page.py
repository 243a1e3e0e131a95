"""The page at /: one file, nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib import resources


def page(wording: bool) -> tuple[str, str]:
    """The page, and the Content-Security-Policy that lets only its own style and script run.

    Args:
        wording: whether questions can be asked in other words too.
    """
    html = (resources.files("imc_lite.server") / "page.html").read_text(encoding="utf-8")
    if not wording:
        html = html.replace('id="wording-field"', 'id="wording-field" hidden')
    style, script = (_hash(re.search(rf"<{tag}>(.*?)</{tag}>", html, flags=re.S)) for tag in ("style", "script"))
    rules = {
        "default-src": "'none'",
        "style-src": style,
        "script-src": script,
        "img-src": "data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return html, "; ".join(f"{name} {value}" for name, value in rules.items())


def _hash(found: re.Match[str] | None) -> str:
    assert found is not None, "page.html has one <style> and one <script>"
    return f"'sha256-{base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()}'"
