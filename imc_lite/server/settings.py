"""Limits and access of a server."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from imc_lite.errors import ImcError
from imc_lite.upstream.client import Upstream
from imc_lite.upstream.connection import is_loopback

KEY_VARIABLE = "IMC_LITE_API_KEY"


@dataclass(frozen=True)
class Settings:
    """What a server allows.

    host: address or name to listen on.
    api_key: clients must send it as a bearer token; None lets everybody in.
    allow_hosts: lower-case `HOST` or `HOST:PORT` that pictures may be fetched from.
    queue: requests that may wait for a worker.
    timeout: seconds from a request's first byte to its answer.
    grace: seconds that requests have left when the server is told to end.
    max_body: bytes of a request; a remote picture may have as many.
    max_pixels: of a picture.
    max_new_tokens: of an answer.
    max_risk: no answer that is likelier to be wrong, whatever a request allows; None leaves that to the requests.
    upstream: the server that answers in the model's place; None has the model answer.
    refuse_ungradable: whether a picture must be known to be gradable to be sent to the upstream.
    """

    host: str = "127.0.0.1"
    api_key: str | None = None
    allow_hosts: tuple[str, ...] = ()
    queue: int = 64
    timeout: float = 60.0
    grace: float = 5.0
    max_body: int = 32 << 20
    max_pixels: int = 40_000_000
    max_new_tokens: int = 64
    max_risk: float | None = None
    upstream: Upstream | None = None
    refuse_ungradable: bool = False

    @property
    def local(self) -> bool:
        """Whether nothing but its address keeps strangers out."""
        return self.api_key is None and is_loopback(self.host)

    @property
    def max_held(self) -> int:
        """Bytes of all request bodies together; a full queue of the largest ones would fill the memory."""
        return 8 * self.max_body

    def limit(self, asked: float | None) -> float | None:
        """The limit on the risk of a request that asks for one, or for none."""
        return min((risk for risk in (asked, self.max_risk) if risk is not None), default=None)


def read_key(file: Path | None) -> str | None:
    """The API key from a file, else from the environment, else None.

    Raises:
        ImcError: the file cannot be read, or the key is empty or not printable ASCII.
    """
    if file is not None:
        try:
            key, source = file.read_text(encoding="utf-8").strip(), str(file)
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "not text"
            raise ImcError(f"cannot read the key file {file} ({why}); write the key into it") from error
    else:
        if KEY_VARIABLE not in os.environ:
            return None
        key, source = os.environ[KEY_VARIABLE].strip(), KEY_VARIABLE
    if not key or not key.isascii() or not key.isprintable():
        raise ImcError(f"{source} holds no usable key; give printable ASCII characters")
    return key
