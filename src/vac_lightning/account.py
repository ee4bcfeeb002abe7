"""The account at W&B: whether there is a login, and whether its server answers."""

from __future__ import annotations

__all__ = ["answers", "login", "quiet_client"]

import http.client
import os
import ssl
import urllib.error
import urllib.request
from typing import Any


def login() -> str:
    """The address of the W&B server that a login is at hand for.

    Raises:
        PermissionError: not logged in.
        ConnectionError: the server does not answer.
    """
    client = quiet_client()
    url = str(client.setup().settings.base_url)
    try:
        logged_in = client.login(prompt=False, verify=False)
    except Exception as error:
        raise PermissionError(f"W&B credentials could not be read ({error})") from error
    if not logged_in:
        raise PermissionError(f"not logged in to W&B at {url}: set WANDB_API_KEY, or say: wandb login")
    if not answers(url):
        raise ConnectionError(f"W&B at {url} does not answer; nothing was sent, and the same words try again")
    return url


def answers(url: str, seconds: float = 5.0) -> bool:
    """Whether an HTTP server says anything at all, be it that there is no such page; through a proxy if one is set."""
    try:
        with urllib.request.urlopen(url, timeout=seconds):
            return True
    except urllib.error.HTTPError:
        return True
    except urllib.error.URLError as error:
        return isinstance(error.reason, ssl.SSLError)  # W&B has settings of its own for certificates
    except (OSError, ValueError, http.client.HTTPException):
        return False


def quiet_client() -> Any:
    """The module wandb, told to keep to what is asked of it."""
    os.environ.setdefault("WANDB_SILENT", "true")
    # W&B's reports about itself hold up the end of a process for 10 s where its server does not answer.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb as client

    return client
