from collections.abc import Callable
from typing import Any, Self

from kazoo.exceptions import KazooException

class RetryFailedError(KazooException): ...

class KazooRetry:
    max_tries: int | None
    retry_exceptions: tuple[type[Exception], ...]
    def __init__(
        self,
        max_tries: int = ...,
        delay: float = ...,
        backoff: float = ...,
        max_jitter: float = ...,
        max_delay: float = ...,
        ignore_expire: bool = ...,
    ) -> None: ...
    def copy(self) -> Self: ...
    def __call__(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any: ...
