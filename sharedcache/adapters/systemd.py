"""Telling systemd how a daemon is doing (sd_notify(3))."""

from __future__ import annotations

import os
import socket

_TIMEOUT_S = 1.0


def notify(state: str) -> bool:
    """Send a state such as ``READY=1``; whether somebody was there to hear it.

    Without ``NOTIFY_SOCKET``, or if sending fails, nothing happens: a daemon's
    work never depends on being heard.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        # An abstract socket: its name begins with a zero byte.
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(_TIMEOUT_S)
            sender.sendto(state.encode(), address)
    except OSError:
        return False
    return True
