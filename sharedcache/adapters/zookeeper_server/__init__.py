"""Private ZooKeeper servers: real ones, on loopback, that end with their parent.

The demo, the standalone command and the tests want a ZooKeeper that nobody has
to set up.  These are the servers that a production site runs, started from the
same jars, so what is seen here about sessions, elections and lost connections
is ZooKeeper's own behaviour and not a stand-in's.

Nothing here stays behind.  The kernel kills a server when the process that
started it goes, even if that process is killed outright.
"""

from sharedcache.adapters.zookeeper_server.ensemble import PrivateEnsemble
from sharedcache.adapters.zookeeper_server.installation import (
    Installation,
    ZooKeeperUnavailable,
    find_classpath,
    find_installation,
    find_java,
)
from sharedcache.adapters.zookeeper_server.launcher import start_child
from sharedcache.adapters.zookeeper_server.ports import (
    LOOPBACK,
    four_letter_word,
    free_ports,
    is_free,
)
from sharedcache.adapters.zookeeper_server.server import (
    START_DEADLINE_S,
    DirectoryInUseError,
    PrivateServer,
    ServerFailedError,
    ServerMode,
)
from sharedcache.adapters.zookeeper_server.spec import (
    QuorumMember,
    ServerSpec,
    render_config,
)

__all__ = [
    "LOOPBACK",
    "START_DEADLINE_S",
    "DirectoryInUseError",
    "Installation",
    "PrivateEnsemble",
    "PrivateServer",
    "QuorumMember",
    "ServerFailedError",
    "ServerMode",
    "ServerSpec",
    "ZooKeeperUnavailable",
    "find_classpath",
    "find_installation",
    "find_java",
    "four_letter_word",
    "free_ports",
    "is_free",
    "render_config",
    "start_child",
]
