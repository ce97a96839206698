"""Where ZooKeeper is and how to speak to it, from what an operator writes.

Either a bare host list, ``host:port,host:port``, or a URL as tooz takes them,
``zookeeper://[user:password@]host:port,host:port?use_ssl=true&ca=/etc/ca.pem``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

BACKEND: Final = "sharedcache-zookeeper"
"""The name under which our tooz backend is registered."""

DEFAULT_PORT: Final = 2181

_SCHEMES: Final = frozenset({"zookeeper", "kazoo", BACKEND})

_TRUE: Final = frozenset({"1", "on", "t", "true", "y", "yes"})
_FALSE: Final = frozenset({"0", "off", "f", "false", "n", "no"})

_SASL_PREFIX: Final = "sasl_"

_TEXTS: Final = frozenset(
    {
        "ca",
        "certfile",
        "keyfile",
        "keyfile_password",
        "sasl_mechanism",
        "sasl_username",
        "sasl_password",
        "sasl_service",
        "sasl_principal",
    }
)
_FLAGS: Final = frozenset(
    {"use_ssl", "verify_certs", "check_hostname", "randomize_hosts"}
)
_NUMBERS: Final = frozenset({"timeout"})

OPTIONS: Final = _TEXTS | _FLAGS | _NUMBERS
"""Every option that a URL may carry."""


@dataclass(frozen=True, slots=True)
class Address:
    """Servers, credentials and options; ``str()`` shows no secret.

    ``hosts`` are ``host:port``, IPv6 in brackets.  Options are kept as text.
    """

    hosts: tuple[str, ...]
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        return ",".join(self.hosts)

    def url(self) -> str:
        """Return the URL that loads our tooz backend with this address."""
        user = ""
        if self.username is not None and self.password is not None:
            user = f"{quote(self.username, safe='')}:{quote(self.password, safe='')}@"
        query = urlencode(dict(self.options))
        return f"{BACKEND}://{user}{self}" + (f"?{query}" if query else "")

    def flag(self, name: str, *, default: bool) -> bool:
        """Read an option that is on or off."""
        text = self.options.get(name)
        return default if text is None else _flag(name, text)

    def number(self, name: str, default: float) -> float:
        """Read an option that is a positive number; fractions are welcome."""
        text = self.options.get(name)
        return default if text is None else _number(name, text)

    def sasl(self) -> dict[str, str]:
        """Return the SASL options under kazoo's names; empty without SASL."""
        return {
            name.removeprefix(_SASL_PREFIX): value
            for name, value in self.options.items()
            if name.startswith(_SASL_PREFIX)
        }


def parse(text: str) -> Address:
    """Read a host list or a URL.

    Raises ``ValueError`` with what to write instead.
    """
    text = text.strip()
    if "://" not in text:
        text = f"zookeeper://{text}"
    parts = urlsplit(text)
    if parts.scheme not in _SCHEMES:
        raise ValueError(
            f"ZooKeeper's URL begins with zookeeper://, not with {parts.scheme}://"
        )
    if parts.fragment:
        raise ValueError(
            "ZooKeeper's URL has no fragment; write # in a password as %23"
        )
    pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=False)
    return build(parts.netloc, parts.path, dict(pairs))


def build(netloc: str, path: str, options: Mapping[str, str]) -> Address:
    """Put an address together from a URL's parts and its options.

    Raises ``ValueError`` if anything in them is not understood: an option that
    is misspelt must not quietly leave a connection without its protection.
    """
    if path not in ("", "/"):
        raise ValueError(
            f"a path ({path}) in ZooKeeper's URL is not supported; the clusters of"
            " one ZooKeeper are kept apart by [sharedcache] cluster"
        )
    userinfo, at, hosts = netloc.rpartition("@")
    username, colon, password = userinfo.partition(":")
    if at and not (username and colon and password):
        raise ValueError("credentials in ZooKeeper's URL are written user:password@")
    for name, value in options.items():
        _check_option(name, value)
    address = Address(
        hosts=tuple(_host(entry) for entry in hosts.split(",")),
        username=unquote(username) if at else None,
        password=unquote(password) if at else None,
        options=dict(options),
    )
    _check_whole(address)
    return address


def _check_whole(address: Address) -> None:
    if address.username is not None and ":" in address.username:
        raise ValueError("a user name for ZooKeeper has no colon")
    verify = address.flag("verify_certs", default=True)
    if address.flag("check_hostname", default=verify) and not verify:
        raise ValueError("check_hostname needs verify_certs")
    if not address.flag("use_ssl", default=False):
        unused = {"ca", "certfile", "keyfile"} & set(address.options)
        if unused:
            raise ValueError(f"{min(unused)} is given but use_ssl is not on")
    if ("certfile" in address.options) != ("keyfile" in address.options):
        raise ValueError("certfile and keyfile are given together or not at all")
    if address.sasl() and "sasl_mechanism" not in address.options:
        raise ValueError("SASL options need sasl_mechanism (DIGEST-MD5 or GSSAPI)")


def _check_option(name: str, value: str) -> None:
    if name in _FLAGS:
        _flag(name, value)
    elif name in _NUMBERS:
        _number(name, value)
    elif name not in _TEXTS:
        raise ValueError(
            f"{name} is no option of ZooKeeper's URL; there are:"
            f" {', '.join(sorted(OPTIONS))}"
        )
    elif not value:
        raise ValueError(f"option {name} of ZooKeeper's URL is empty")


def _flag(name: str, value: str) -> bool:
    word = value.lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError(f"option {name} is true or false, not {value!r}")


def _number(name: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise ValueError(f"option {name} is a positive number, not {value!r}")
    return number


def _host(entry: str) -> str:
    """Return ``host:port`` with the port spelled out."""
    entry = entry.strip()
    try:
        parts = urlsplit(f"//{entry}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"{entry!r} is no host:port of ZooKeeper: {error}") from error
    if not host or parts.path or parts.query or "@" in entry or port == 0:
        raise ValueError(f"{entry!r} is no host:port of ZooKeeper")
    shown = f"[{host}]" if ":" in host else host
    return f"{shown}:{DEFAULT_PORT if port is None else port}"
