"""What went wrong, as people read it: one line where they can mend it, else a traceback."""

from __future__ import annotations

__all__ = ["RunError", "UsageError", "code", "text"]

import traceback

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from vac_lightning.commands import credentials, words
from vac_lightning.names import shown


class UsageError(ValueError):
    """Words on the command line that cannot be used; the message says what is allowed."""


class RunError(RuntimeError):
    """Something that went wrong on the way and that the message explains; a traceback would add nothing."""


def code(error: Exception) -> int:
    """The exit code: 2 for what the words or the data brought about, else 1."""
    return 2 if isinstance(error, _OF_THE_WORDS) else 1


def text(command: str, error: Exception) -> str:
    """What is printed about an error.

    Messages quote names and values from files of others, and from the command line: neither steers the terminal, and
    no credential is repeated.
    """
    if isinstance(error, _OF_THE_WORDS):
        return shown(credentials.redacted(f"vac {command}: {words.explain(command, error)}"))
    if isinstance(error, RunError):
        return shown(credentials.redacted(f"vac {command}: {error}"))
    lines = credentials.redacted("".join(traceback.format_exception(error))).splitlines()
    return "\n".join(map(shown, lines))


_OF_THE_WORDS = (HydraException, OmegaConfBaseException, UsageError)
