from collections.abc import Sequence
from typing import Final, NamedTuple

class Id(NamedTuple):
    scheme: str
    id: str

class ACL(NamedTuple):
    perms: int
    id: Id

OPEN_ACL_UNSAFE: Final[Sequence[ACL]]
CREATOR_ALL_ACL: Final[Sequence[ACL]]

def make_digest_acl(username: str, password: str, *, all: bool = ...) -> ACL: ...
