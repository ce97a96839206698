"""Where ZooKeeper's jars and a Java to run them are."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

_DEBIAN_JAR = Path("/usr/share/java/zookeeper.jar")
# Debian's jar names slf4j's interface among its dependencies but none of its
# implementations, and without one ZooKeeper logs nothing at all.
_DEBIAN_LOGGER = Path("/usr/share/java/slf4j-simple.jar")


class ZooKeeperUnavailable(RuntimeError):  # noqa: N818 - a state of the machine.
    """No ZooKeeper can be started here; the message says what to install or set."""


class Installation(NamedTuple):
    """The programs that a server runs from."""

    java: str
    classpath: str


def find_classpath(environ: Mapping[str, str]) -> str:
    """Give the Java class path of ZooKeeper's jars.

    That is `ZOOKEEPER_CLASSPATH` where it is set, else Debian's package.
    Raises ZooKeeperUnavailable if there is neither.
    """
    named = environ.get("ZOOKEEPER_CLASSPATH", "")
    if named:
        return named
    if _DEBIAN_JAR.exists():
        return f"{_DEBIAN_JAR}:{_DEBIAN_LOGGER}"
    raise ZooKeeperUnavailable(
        "ZooKeeper is not installed: run `sudo apt-get install -y zookeeper`, or set "
        "ZOOKEEPER_CLASSPATH to a Java class path with ZooKeeper's jars",
    )


def find_java(environ: Mapping[str, str]) -> str:
    """Give the absolute path of a Java runtime, `JAVA_HOME`'s or the one on `PATH`.

    Raises ZooKeeperUnavailable if there is none.
    """
    home = environ.get("JAVA_HOME", "")
    found = shutil.which(f"{home}/bin/java") if home else None
    found = found or shutil.which("java", path=environ.get("PATH", os.defpath))
    if found is None:
        raise ZooKeeperUnavailable(
            "Java is not installed: run `sudo apt-get install -y "
            "default-jre-headless`, or set JAVA_HOME to a Java runtime, version 8 "
            "or newer",
        )
    return str(Path(found).absolute())


def find_installation(environ: Mapping[str, str]) -> Installation:
    """Find Java and ZooKeeper's jars.

    Raises ZooKeeperUnavailable with everything that is missing, so that one
    visit to the package manager is enough.
    """
    found, missing = [], []
    for find in (find_java, find_classpath):
        try:
            found.append(find(environ))
        except ZooKeeperUnavailable as error:
            missing.append(str(error))
    if missing:
        raise ZooKeeperUnavailable("; ".join(missing))
    return Installation(*found)
