"""The one exception a user is meant to see."""

from __future__ import annotations

# What reading a file of another make, or one that was tampered with, runs into.
UNREADABLE = (KeyError, ValueError, TypeError, AttributeError, IndexError, RecursionError)
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
    """User input as an error may repeat it: one printable line of at most `most` characters.

    What is too long loses its middle, so that both the folder a path begins with and the file it ends in stay.
    """
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(given))
    if len(line) <= most:
        return line
    end = 2 * most // 3
    return f"{line[: most - end - 1]}…{line[-end:]}"
