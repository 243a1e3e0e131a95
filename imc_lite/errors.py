"""The one exception a user is meant to see."""

from __future__ import annotations

SHOWN = 80  # characters of what a user gave that an error repeats


class ImcError(Exception):
    """Bad input or a state the user can mend: one line that says what, why and what to do.

    The command line prints it on stderr without a traceback and exits with code 2.
    """


def missing(error: ImportError, install: str) -> ImcError:
    """What to raise where a package that not everybody needs is imported and is not there.

    Args:
        error: of the import.
        install: what brings the package, such as "imc-lite[serve]".

    Raises:
        ImportError: the error itself, where no package is missing: one that is there but broken, or a module of our own
            that cannot be found.
    """
    package = (error.name or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or package in ("", "imc_lite"):
        raise error
    return ImcError(f"{package} is not installed; install {install}")


def shown(given: object, most: int = SHOWN) -> str:
    """What a user gave, as an error may repeat it: printable, at most 80 characters, the middle left out."""
    text = str(given)
    if len(text) > most:
        half = (most - 1) // 2
        text = f"{text[:half]}…{text[-(most - 1 - half) :]}"
    return "".join(c if c.isprintable() else "?" for c in text)
