"""conf/ and experiments/: folders that lie at the top of the repository and travel inside the wheel."""

from __future__ import annotations

__all__ = ["shipped"]

from pathlib import Path


def shipped(folder: str) -> Path:
    """conf or experiments: inside the package when installed from a wheel, else at the top of the repository."""
    package = Path(__file__).parent
    inside = package / folder
    return inside if inside.is_dir() else package.parents[1] / folder
