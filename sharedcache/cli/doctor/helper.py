"""Reading what a helper finds, and leaving it when it does not answer."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sharedcache.cli.doctor.findings import Finding, Level, fail

_REAP_S = 1.0
_PIECE = 65536


@dataclass(slots=True)
class Found:
    """What a helper found, and the facts that it told."""

    findings: list[Finding] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    under_way: str = "the helper's start"

    def take(self, line: bytes) -> None:
        """Take one line of the helper's."""
        said = json.loads(line)
        if "begins" in said:
            self.under_way = said["begins"]
        elif "fact" in said:
            self.facts[said["fact"]] = said["value"]
        else:
            self.findings.append(
                Finding(
                    said["check"],
                    Level(said["result"]),
                    said["message"],
                    said["what_to_do"],
                )
            )


def run(command: Sequence[str], patience_s: float) -> Found:
    """Run a helper until it ends, or until it says nothing for ``patience_s``.

    A helper that waits for a storage in the kernel may outlive even SIGKILL;
    nobody waits for it longer than a second.
    """
    found = Found()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
        answered = _read(process, patience_s, found)
        process.kill()
        try:
            code = process.wait(_REAP_S)
        except subprocess.TimeoutExpired:
            code = 0
            # It ends when the storage answers; this process does not wait.
            process.returncode = code
        if process.stdout is not None:
            process.stdout.close()
        if not answered:
            found.findings.append(
                fail(
                    found.under_way,
                    f"no answer within {patience_s:g} s",
                    "does the storage hang? Look at the mount and at its server",
                )
            )
        elif code > 0:
            errors.seek(0)
            lines = errors.read().decode("utf-8", "replace").strip().splitlines()
            why = lines[-1] if lines else f"exit code {code}"
            found.findings.append(
                fail(found.under_way, f"the check ended: {why}", "please report it")
            )
    return found


def _read(process: subprocess.Popen[bytes], patience_s: float, found: Found) -> bool:
    """Read lines until the helper ends; ``False`` if it was silent for too long."""
    if process.stdout is None:
        return False
    pipe = process.stdout.fileno()
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        until = time.monotonic() + patience_s
        while True:
            if not selector.select(max(0.0, until - time.monotonic())):
                return False
            data = os.read(pipe, _PIECE)
            if not data:
                # Its end of the pipe is closed: it has ended, or is about to.
                try:
                    process.wait(_REAP_S)
                except subprocess.TimeoutExpired:
                    return False
                return True
            until = time.monotonic() + patience_s
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                found.take(line)
