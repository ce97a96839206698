import logging
from pathlib import Path
from types import TracebackType

class InterProcessLock:
    path: bytes
    acquired: bool
    def __init__(
        self,
        path: str | Path,
        sleep_func: object = ...,
        logger: logging.Logger | None = ...,
    ) -> None: ...
    def acquire(
        self,
        blocking: bool = ...,
        delay: float = ...,
        max_delay: float = ...,
        timeout: float | None = ...,
    ) -> bool: ...
    def release(self) -> None: ...
    def exists(self) -> bool: ...
    def __enter__(self) -> InterProcessLock: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> bool | None: ...
