"""``sharedcache fetch`` and ``sharedcache prefetch``."""

from __future__ import annotations

import math
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO

import click
from rich.console import Console
from rich.progress import Progress

from sharedcache.cache import (
    CacheError,
    Fetch,
    FileKind,
    Limits,
    NoSpaceError,
    SharedCache,
    fetchers,
)
from sharedcache.cache.partial import Partial
from sharedcache.cli import output
from sharedcache.cli.base import Given, common_options, pass_given
from sharedcache.cli.data import Data
from sharedcache.cli.failure import Failure
from sharedcache.cli.signals import heard
from sharedcache.core.digests import Digest, DigestError
from sharedcache.core.wanted import IMAGE, KERNEL, RAMDISK, WantedError, wanted

JOBS = 2
RESERVE_PERCENT = 2.0

_LOOK_S = 0.1
"""How long an interrupt may wait to be heard."""

_KINDS = {"image": IMAGE, "kernel": KERNEL, "ramdisk": RAMDISK}
_COLUMNS = ("image", "name", "bytes", "fetched", "error")
_FIELDS = ("source", "kind", "digest")

Tell = Callable[[str], fetchers.Watch]
"""Gives who is told of one image's progress."""


@dataclass(frozen=True, slots=True)
class _Order:
    """One image to have in the cache, and where it comes from."""

    image: str
    source: str
    kind: str
    digest: Digest | None

    def fetch(self, command: str, watch: fetchers.Watch) -> Fetch:
        """Return what fetches it; raises ``FetchError``."""
        if not self.source:
            words = [word.replace("{id}", self.image) for word in shlex.split(command)]
            return fetchers.from_command(*words, watch=watch)
        if self.source.startswith(("http://", "https://")):
            return fetchers.from_url(self.source, watch)
        return fetchers.from_file(self.source, watch)


def _number(_: click.Context, option: click.Parameter, value: float) -> float:
    """Refuse what is no number, which no range refuses."""
    if math.isnan(value):
        raise click.BadParameter("nan is not a number", param=option)
    return value


def _reserve(command: click.decorators.FC) -> click.decorators.FC:
    return click.option(
        "--reserve-percent",
        type=click.FloatRange(0, 100, max_open=True),
        default=RESERVE_PERCENT,
        show_default=True,
        metavar="PERCENT",
        callback=_number,
        help="Share of the storage that must stay free.",
    )(command)


@click.command()
@click.argument("image")
@click.argument("source", required=False, default="")
@click.option("--command", default="", help="Program that prints it; {id} is the id.")
@click.option("--kind", type=click.Choice(list(_KINDS)), default="image")
@click.option("--digest", metavar="ALGORITHM:HEX", help="What it must yield.")
@_reserve
@common_options
@pass_given
def fetch(
    given: Given,
    *,
    image: str,
    source: str,
    command: str,
    kind: str,
    digest: str | None,
    reserve_percent: float,
) -> None:
    """Have an image in the cache: fetch it, unless it is there.

    SOURCE is a file or an HTTP(S) address. ZooKeeper is not needed.

    \b
      sharedcache fetch 0b5cbd6e-6f3a-4d3c-9a51-0123456789ab ./image.qcow2
      sharedcache fetch ID https://images/x.img --digest sha256:HEX
      sharedcache fetch ID --kind kernel --command 'openstack image save {id}'
    """  # noqa: D301 - \b is click's mark for text that is not wrapped
    order = _order([image, source, kind, digest or ""], command)
    (said,) = _carry_out(given, [order], command, 1, reserve_percent)
    given.emit(said, lambda console: _show(console, [said]))
    _judge([said])


@click.command()
@click.argument("list_file", metavar="LIST", type=click.File("r"))
@click.option("--command", default="", help="Program that prints one; {id} is the id.")
@click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    default=JOBS,
    show_default=True,
    help="How many are fetched at a time.",
)
@_reserve
@common_options
@pass_given
def prefetch(
    given: Given, *, list_file: TextIO, command: str, jobs: int, reserve_percent: float
) -> None:
    """Have many images in the cache, several at a time.

    LIST has a line for each: its id, and, if wanted, a file or HTTP(S) address
    (- for the --command), a kind (image, kernel, ramdisk) and a digest. Lines
    that begin with # are left out; LIST - is the standard input. Every image is
    tried; the exit code is 1 if any could not be had.

    \b
      sharedcache prefetch images.txt --jobs 4
      openstack image list -f value -c ID |
        sharedcache prefetch - --command 'openstack image save {id}'
    """  # noqa: D301 - \b is click's mark for text that is not wrapped
    try:
        text = list_file.read()
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{list_file.name} is no text: {error}") from error
    lines = [
        line.split()
        # Some editors begin a file with a mark of its own.
        for line in text.removeprefix("\ufeff").splitlines()
        if not line.lstrip().startswith("#")
    ]
    orders = [_order(line, command) for line in lines if line]
    said = _carry_out(given, orders, command, jobs, reserve_percent)
    given.emit(said, lambda console: _show(console, said))
    _judge(said)


def _order(words: Sequence[str], command: str) -> _Order:
    """Read what one line or one command says; raises ``click.UsageError``."""
    known = dict(zip(("image", *_FIELDS), words, strict=False))
    source = known.get("source", "").removeprefix("-")
    kind = known.get("kind", "image")
    if len(words) > 1 + len(_FIELDS) or kind not in _KINDS:
        raise click.UsageError(f"not understood: {' '.join(words)}")
    if not source and not command:
        raise click.UsageError(
            f"{known['image']}: say where it comes from, SOURCE or --command"
        )
    try:
        text = known.get("digest", "")
        digest = Digest.parse(text) if text else None
        wanted(known["image"], _KINDS[kind], 1)
    except (DigestError, WantedError) as error:
        raise click.UsageError(str(error)) from error
    return _Order(known["image"], source, kind, digest)


def _carry_out(
    given: Given,
    orders: Sequence[_Order],
    command: str,
    jobs: int,
    reserve_percent: float,
) -> list[Data]:
    settings = given.settings()
    with (
        SharedCache(
            settings.require_base(),
            cluster=settings.cluster,
            lock_path=settings.lock_path,
            agent_socket=settings.agent.socket,
            limits=Limits(reserve_percent=reserve_percent),
        ) as cache,
        _bars() as tell,
    ):
        return _Worker(cache, command, tell).all(orders, jobs)


@dataclass(slots=True)
class _Worker:
    """Carries orders out, several at a time."""

    cache: SharedCache
    command: str
    tell: Tell
    stopped: threading.Event = field(default_factory=threading.Event)

    def all(self, orders: Sequence[_Order], jobs: int) -> list[Data]:
        """Carry all out; an interrupt ends those under way, and waiting for others.

        At once, but for a server that is silent: ``fetchers.TIMEOUT_S`` later then.
        """
        asked: list[int] = []
        # Told, not raised: one that is raised inside a lock's own code leaves the
        # lock taken, and one that comes right before an unbounded wait is not seen.
        with ThreadPoolExecutor(jobs) as pool, heard((signal.SIGINT,), asked.append):
            under_way = [pool.submit(self.one, order) for order in orders]
            try:
                while _going_on(under_way):
                    _raise_interrupt(asked)
                return [one.result() for one in under_way]
            except BaseException:
                self.stopped.set()
                self.cache.interrupt()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def one(self, order: _Order) -> Data:
        """Carry one out; what went wrong is told beside the others."""
        fetched: list[str] = []
        said: Data = dict.fromkeys(_COLUMNS)
        said |= {"image": order.image, "fetched": False}
        watch = self.tell(order.image)

        def look(done: int, total: int | None) -> None:
            if self.stopped.is_set():
                raise CacheError("interrupted")
            watch(done, total)

        def fetch(partial: Partial) -> None:
            fetched.append(partial.name)
            order.fetch(self.command, look)(partial)

        kind: FileKind = _KINDS[order.kind]
        try:
            with self.cache.use(
                order.image, kind, fetch=fetch, digest=order.digest
            ) as path:
                said |= {
                    "name": path.name,
                    "bytes": path.stat().st_size,
                    "fetched": bool(fetched),
                }
        except NoSpaceError:
            # No other one would find room either.
            raise
        except (CacheError, OSError) as error:
            said["error"] = " ".join(str(error).split())
        return said


def _going_on(under_way: Sequence[Future[Data]]) -> bool:
    """Wait a moment; whether something is still to do.  Raises what one raised."""
    done, rest = wait(under_way, _LOOK_S, FIRST_EXCEPTION)
    for one in done:
        one.result()
    return bool(rest)


def _raise_interrupt(asked: Sequence[int]) -> None:
    if asked:
        raise KeyboardInterrupt


@contextmanager
def _bars() -> Iterator[Tell]:
    """Show a bar for each image that is being fetched, on a terminal."""
    if not sys.stderr.isatty():
        yield lambda _image: _nobody
        return
    columns = output.byte_columns()
    with Progress(*columns, console=output.stderr(), transient=True) as bars:

        def tell(image: str) -> fetchers.Watch:
            task = bars.add_task(image, total=None)
            return lambda done, total: bars.update(task, completed=done, total=total)

        yield tell


def _nobody(_done: int, _total: int | None) -> None:
    """Tell nobody."""


def _show(console: Console, said: Sequence[Data]) -> None:
    output.rows(console, _COLUMNS, [[one[key] for key in _COLUMNS] for one in said])


def _judge(said: Sequence[Data]) -> None:
    failed = [one for one in said if one["error"] is not None]
    if len(said) == 1 and failed:
        raise Failure(str(failed[0]["error"]))
    if failed:
        raise Failure(f"{len(failed)} of {len(said)} could not be had: see the table")
