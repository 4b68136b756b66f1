"""The error that a user's mistake raises: one line that names the file and the mend."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake the user can mend; the command line prints it as one line and exits with code 2."""


def closest(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for the nearest of ``known``, else the list of what there is."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else f"; there are: {', '.join(known)}"


def require_known(name: str, known: Iterable[str], what: str) -> None:
    """Raise :class:`UserError` unless ``name`` is one of ``known``; suggests the nearest name."""
    known = list(known)
    if name not in known:
        raise UserError(f"unknown {what} '{name}'{closest(name, known)}")
