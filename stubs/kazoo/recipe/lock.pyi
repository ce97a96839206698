from kazoo.client import KazooClient
from kazoo.retry import KazooRetry

class Lock:
    client: KazooClient
    path: str
    node: str | None
    prefix: str
    data: bytes
    is_acquired: bool
    _retry: KazooRetry
    def acquire(
        self, blocking: bool = ..., timeout: float | None = ..., ephemeral: bool = ...
    ) -> bool: ...
    def release(self) -> bool: ...
    def contenders(self) -> list[str]: ...
