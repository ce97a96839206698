"""Amounts as people write them on a command line: 7d, 50M."""

from __future__ import annotations

import re

import click

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_TIME = re.compile(r"(\d+(?:\.\d+)?)([smhdw])\Z", re.ASCII)
_UNITS_BYTES = {"": 1.0, "k": 2.0**10, "m": 2.0**20, "g": 2.0**30, "t": 2.0**40}
_BYTES = re.compile(r"(\d+(?:\.\d+)?)([kmgt]?)(?:i?b)?\Z", re.ASCII | re.IGNORECASE)
_MOST = 2**60


def seconds(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> float | None:
    """Read a length of time such as 90s, 30m, 2h, 7d or 4w."""
    if value is None:
        return None
    match = _TIME.match(value)
    if match is None:
        raise click.BadParameter(
            f"{value!r} is no time such as 90s, 30m, 2h, 7d", context, parameter
        )
    return float(match[1]) * _UNITS_S[match[2]]


def bytes_of(context: click.Context, parameter: click.Parameter, value: str) -> float:
    """Read an amount of bytes such as 4096, 500k, 50M or 1G; units are of 1024."""
    match = _BYTES.match(value)
    if match is not None:
        amount = float(match[1]) * _UNITS_BYTES[match[2].lower()]
        if amount <= _MOST:
            return amount
    raise click.BadParameter(
        f"{value!r} is no amount of bytes such as 4096, 500k, 50M", context, parameter
    )
