"""Uses that programs on this host declare to the agent, over a local socket.

One line of JSON asks, one answers.  A declaration lasts as long as its
connection: a program that ends, however it ends, uses nothing any more.

    {"use": "<cache name>"}      ->  {"ok": true}   or  {"error": "<why>"}
    {"release": "<cache name>"}  ->  {"ok": true}
    {"ping": true}               ->  {"ok": true}
"""

from __future__ import annotations

from sharedcache.adapters.uses_socket.client import AgentLink
from sharedcache.adapters.uses_socket.server import UsesSocket, UsesSocketError

__all__ = ["AgentLink", "UsesSocket", "UsesSocketError"]
