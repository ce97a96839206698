"""A private NFSv4.1 server (nfs-ganesha) on loopback."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
from typing import TYPE_CHECKING, Self

from sharedcache.adapters.zookeeper_server.launcher import start_child
from sharedcache.adapters.zookeeper_server.ports import LOOPBACK, free_ports
from tests.support.nfs.needs import GANESHA, program
from tests.support.polling import eventually

if TYPE_CHECKING:
    from pathlib import Path

START_DEADLINE_S = 60.0
_STOP_S = 10.0
PSEUDO = "/export"

# No NLM and no RQUOTA: they belong to version 3, and would want an rpcbind.
# Without a grace period a server that nobody used before answers at once.
_CONFIG = """\
NFS_CORE_PARAM {{
    Protocols = 4; NFS_Port = {port}; Bind_addr = {address};
    Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false;
}}
NFSV4 {{
    Graceless = true; RecoveryBackend = fs; RecoveryRoot = "{home}/recovery";
    Minor_Versions = 1; Lease_Lifetime = 60; Delegations = true;
}}
NFS_KRB5 {{ Active_krb5 = false; }}
EXPORT {{
    Export_Id = 1; Path = "{export}"; Pseudo = "{pseudo}";
    Protocols = 4; Transports = TCP; Access_Type = RW; Squash = No_Root_Squash;
    SecType = sys; Delegations = RW;
    FSAL {{ Name = VFS; }}
}}
"""


class Server:
    """A server of one directory, `export`; runs inside its `with` block."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.export = home / "export"
        self.log = home / "server.log"
        self.port = free_ports(1)[0]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start it and wait until it accepts connections."""
        for path in (self.home, self.export, self.home / "recovery"):
            path.mkdir()
        config = self.home / "ganesha.conf"
        config.write_text(
            _CONFIG.format(
                port=self.port,
                address=LOOPBACK,
                home=self.home,
                export=self.export,
                pseudo=PSEUDO,
            )
        )
        command = [
            *(str(program(GANESHA)), "-F", "-f", str(config)),
            *("-L", str(self.log), "-p", str(self.home / "pid"), "-N", "NIV_WARN"),
        ]
        with (self.home / "server.out").open("wb") as output:
            self._process = start_child(
                command, directory=self.home, output=output.fileno()
            )
        try:
            eventually(self._answers, START_DEADLINE_S, "the NFS server accepts")
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self._stop()

    def _answers(self) -> bool:
        assert self._process is not None
        ended = self._process.poll()
        if ended is not None:
            raise RuntimeError(f"the NFS server ended with {ended}:\n{self.tail(40)}")
        with socket.create_connection((LOOPBACK, self.port), 1.0):
            return True

    def _stop(self) -> None:
        process = self._process
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
        process.kill()
        process.wait()
        self._process = None

    def version(self) -> str:
        """Tell the server's name and version."""
        answer = subprocess.run(
            [str(program(GANESHA)), "-v"], check=True, capture_output=True, text=True
        )
        return answer.stdout.splitlines()[0].strip()

    def tail(self, lines: int) -> str:
        """Return the end of the server's log and of what it printed."""
        told = [
            path.read_text("utf-8", "replace")
            for path in (self.home / "server.out", self.log)
            if path.exists()
        ]
        return "\n".join("\n".join(told).splitlines()[-lines:])
