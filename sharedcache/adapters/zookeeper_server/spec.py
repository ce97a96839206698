"""What one server is to be, and the configuration files that say so."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sharedcache.adapters.zookeeper_server.ports import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# Releases differ in the logging library that they bring: Debian's has none
# (we add slf4j-simple), upstream has log4j 1 up to 3.7 and logback from 3.8.
# Each reads only its own file, so all three are there.  NIOServerCnxn says at
# INFO only that it was asked a four-letter word, which we do many times a second.
LOGGING_FILES = {
    "simplelogger.properties": """\
org.slf4j.simpleLogger.defaultLogLevel=info
org.slf4j.simpleLogger.showDateTime=true
org.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS
org.slf4j.simpleLogger.showShortLogName=true
org.slf4j.simpleLogger.log.org.apache.zookeeper.server.NIOServerCnxn=warn
""",
    "log4j.properties": """\
log4j.rootLogger=INFO, CONSOLE
log4j.appender.CONSOLE=org.apache.log4j.ConsoleAppender
log4j.appender.CONSOLE.layout=org.apache.log4j.PatternLayout
log4j.appender.CONSOLE.layout.ConversionPattern=%d{ISO8601} [%t] %p %c{1} - %m%n
log4j.logger.org.apache.zookeeper.server.NIOServerCnxn=WARN
""",
    "logback.xml": """\
<configuration>
  <appender name="CONSOLE" class="ch.qos.logback.core.ConsoleAppender">
    <encoder>
      <pattern>%date{ISO8601} [%thread] %level %logger{0} - %message%n</pattern>
    </encoder>
  </appender>
  <logger name="org.apache.zookeeper.server.NIOServerCnxn" level="WARN"/>
  <root level="INFO"><appender-ref ref="CONSOLE"/></root>
</configuration>
""",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class QuorumMember:
    """One server of an ensemble, as its peers address it."""

    server_id: int
    quorum_port: int
    election_port: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerSpec:
    """What one server is to be.

    A `client_port` of None has one chosen.  Sessions last at least two ticks
    and at most `max_session_timeout_ms`; an unplanned expiry is noticed within
    a tick.  Without `fsync` a power failure loses acknowledged writes, and the
    death of the server does not: right for tests, wrong for anything kept.
    No `members` means a standalone server.  `options` are further lines of
    zoo.cfg and `java_options` further arguments of the JVM; both win over ours.
    """

    data_dir: Path
    client_port: int | None = None
    tick_time_ms: int = 500
    max_session_timeout_ms: int = 40_000
    heap_mib: int = 256
    fsync: bool = True
    server_id: int = 1
    members: tuple[QuorumMember, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    java_options: tuple[str, ...] = ()


def render_config(spec: ServerSpec, client_port: int) -> str:
    """Write a server's zoo.cfg.

    Paths in it are relative to the server's working directory, because a Java
    properties file has rules of its own for backslashes and accents.
    """
    settings = {
        "tickTime": str(spec.tick_time_ms),
        "minSessionTimeout": str(2 * spec.tick_time_ms),
        "maxSessionTimeout": str(spec.max_session_timeout_ms),
        "initLimit": "20",
        "syncLimit": "10",
        "dataDir": "./data",
        "clientPort": str(client_port),
        "clientPortAddress": LOOPBACK,
        "maxClientCnxns": "0",
        "admin.enableServer": "false",
        "4lw.commands.whitelist": "*",
        "autopurge.purgeInterval": "1",
    }
    for member in spec.members:
        settings["standaloneEnabled"] = "false"
        settings[f"server.{member.server_id}"] = (
            f"{LOOPBACK}:{member.quorum_port}:{member.election_port}"
        )
    settings.update(spec.options)
    return "".join(f"{name}={value}\n" for name, value in settings.items())
