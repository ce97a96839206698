"""What several kinds of test share: waiting, and disturbing ZooKeeper sessions."""

from tests.support.polling import eventually
from tests.support.zookeeper import (
    EXTERNAL_SERVER,
    ExternalServer,
    expire_session,
    password_of,
    restore,
)

__all__ = [
    "EXTERNAL_SERVER",
    "ExternalServer",
    "eventually",
    "expire_session",
    "password_of",
    "restore",
]
