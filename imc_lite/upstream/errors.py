"""What goes wrong with an upstream. Kept apart from the client, so that who only catches it imports no HTTP."""

from __future__ import annotations

from imc_lite.errors import ImcError


class UpstreamError(ImcError):
    """The upstream cannot be reached, breaks off, refuses, or does not speak OpenAI's API."""


class UpstreamUnavailable(UpstreamError):
    """The upstream would not answer another question either: it is not there, or wants another address, key or model.

    A batch stops at it, where other errors become the row of their case.
    """
