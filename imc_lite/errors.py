"""The one exception a user is meant to see."""


class ImcError(Exception):
    """Bad input or a state the user can mend: one line that says what, why and what to do.

    The command line prints it on stderr without a traceback and exits with code 2.
    """
