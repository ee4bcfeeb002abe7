"""Where a step's time goes, part by part."""

from __future__ import annotations

__all__ = ["Stopwatch"]

import functools
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from measuring import synchronise


class Stopwatch:
    """Seconds by part, each without the parts that run inside it.

    It waits for a GPU before and after each part, so that a part's time is its own; the sum is then a little more than
    that of a step which nobody watches.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inside = [0.0]

    def watch(self, owner: Any, name: str, part: str) -> None:
        """Count every call of owner's function `name` as `part` from now on."""
        function: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(function)
        def watched(*args: Any, **kwargs: Any) -> Any:
            synchronise()
            start = time.perf_counter()
            self._inside.append(0.0)
            try:
                return function(*args, **kwargs)
            finally:
                synchronise()
                total = time.perf_counter() - start
                self.seconds[part] += total - self._inside.pop()
                self._inside[-1] += total

        setattr(owner, name, watched)
