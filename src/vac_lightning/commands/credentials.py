"""Credentials: kept out of what a run leaves behind, by finding them before anything is written."""

from __future__ import annotations

__all__ = ["Redaction", "check", "redacted"]

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra.errors import HydraException

SHORTEST = 8
"""Characters of the shortest secret that is looked for: shorter ones are found in any text."""


def check(config: Mapping[str, Any], arguments: Sequence[str] = ()) -> None:
    """Search a configuration, and what was typed on the command line, for credentials.

    They are: the values of environment variables that hold secrets by their name, such as WANDB_API_KEY; URLs with
    a password; and whatever stands at a key such as api_key, token or password.

    Raises:
        HydraException: a credential; the message names its word and never its value.
    """
    secrets = _secrets()
    for argument in arguments:
        word, _, value = argument.partition("=")
        word = word.lstrip("+~")
        _check_value(word, word.rpartition(".")[2], value, secrets)
    for word, key, value in _words(config):
        _check_value(word, key, value, secrets)


def redacted(text: str) -> str:
    """A text with the secrets of the environment, and the passwords in URLs, replaced by ***."""
    for secret in _secrets():
        text = text.replace(secret, "***")
    return _PASSWORD_IN_URL.sub(r"\1***@", text)


class Redaction(logging.Filter):
    """Keeps credentials out of log messages, whoever writes them."""

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            message = record.getMessage()
        except Exception:  # a message that does not fit its arguments is for logging to complain about
            return True
        if (clean := redacted(message)) != message:
            record.msg, record.args = clean, ()
        if record.exc_info and record.exc_text is None:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = redacted(record.exc_text)
        return True


def _check_value(word: str, key: str, value: Any, secrets: Mapping[str, str]) -> None:
    text = f"{word}={value}"
    if name := next((name for secret, name in secrets.items() if secret in text), None):
        what = f"the value of the environment variable {name}"
    elif _PASSWORD_IN_URL.search(text):
        what = "a URL with a password"
    elif _NAMES_A_SECRET.search(key) and str(value).lower() not in ("", "none", "null", "???", "true", "false"):
        what = "what its name says is a credential"
    else:
        return
    raise HydraException(
        f"{redacted(word)}: holds {what}, which would be saved with the run; leave it to the environment"
        " (WANDB_API_KEY) or to `wandb login`"
    )


def _secrets() -> dict[str, str]:
    """The secrets of the environment -> the names of their variables, longest first."""
    found = {
        value: name
        for name, value in os.environ.items()
        if _HOLDS_A_SECRET.search(name) and len(value) >= SHORTEST and not os.path.exists(value)  # noqa: PTH110
    }  # Path.exists raises for a text too long to be a path
    return dict(sorted(found.items(), key=lambda item: -len(item[0])))


def _words(value: Any, word: str = "", key: str = "") -> Iterator[tuple[str, str, Any]]:
    """Every value of a configuration with its word and the last key of it."""
    if isinstance(value, Mapping):
        for name, child in value.items():
            yield from _words(child, f"{word}.{name}".lstrip("."), str(name))
    elif isinstance(value, list | tuple):
        for child in value:
            yield from _words(child, word, key)
    else:
        yield word, key, value


_HOLDS_A_SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_KEY(?!_ID)", re.IGNORECASE)
_NAMES_A_SECRET = re.compile(r"(^|_)(api_?key|token|password|passwd|secret|private_key|access_key)$", re.IGNORECASE)
_PASSWORD_IN_URL = re.compile(r"(\w://[^/\s:@]*:)[^/\s@]+@")
