"""Looking again at what others write to at that moment."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import ParamSpec, TypeVar

LOOKS, BETWEEN_SECONDS = 5, 0.05
"""How often one looks, and what is waited in between: a writer opens or closes a gallery in less."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


def looking_again(error: type[Exception]) -> Callable[[Callable[_P, _T]], Callable[_P, _T]]:
    """Decorates a read: where it raises `error` it is done again, a few times, and the last error stands."""

    def decorate(read: Callable[_P, _T]) -> Callable[_P, _T]:
        @wraps(read)
        def repeated(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            for _ in range(LOOKS - 1):
                with suppress(error):
                    return read(*args, **kwargs)
                time.sleep(BETWEEN_SECONDS)
            return read(*args, **kwargs)

        return repeated

    return decorate
