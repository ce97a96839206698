"""``sharedcache fetch`` and ``prefetch``: files, addresses, programs; no ZooKeeper."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sharedcache.adapters.novalock import NovaNameLocks
from sharedcache.cache import DamagedError, LostLockError, Partial, fetchers
from sharedcache.cache.fetchers import FetchError
from sharedcache.core.names import digest_of, lock_name
from tests.support import eventually
from tests.support.cluster import clean_environment
from tests.support.writers import (
    CONTENT,
    KERNEL_ID,
    QUICK,
    bound_base,
    names_in,
    writer,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

ID = "11111111-0000-4000-8000-000000000001"
NAME = digest_of(ID).hex()
_COMMAND = (sys.executable, "-m", "sharedcache.cli.main")


@dataclass
class Shop:
    """An HTTP server of one file, which may break off, change, or refuse."""

    content: bytes = CONTENT
    tag: str = '"one"'
    breaks: list[int] = field(default_factory=list)
    refuse: int = 0
    sized: bool = True
    redirect: str = ""
    ranges: list[str | None] = field(default_factory=list)
    address: str = ""

    def answer(self, to: BaseHTTPRequestHandler) -> None:
        """Answer one request; each of ``breaks`` ends one after so many bytes."""
        wanted = to.headers.get("Range")
        self.ranges.append(wanted)
        if self.refuse:
            to.send_error(self.refuse)
            return
        if self.redirect:
            to.send_response(302)
            to.send_header("Location", self.redirect)
            to.end_headers()
            return
        start = 0
        if wanted and to.headers.get("If-Range") == self.tag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        data = self.content[start:]
        to.send_response(206 if start else 200)
        if start:
            whole = len(self.content)
            to.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
        if self.sized:
            to.send_header("Content-Length", str(len(data)))
        to.send_header("ETag", self.tag)
        to.end_headers()
        to.wfile.write(data[: self.breaks.pop(0)] if self.breaks else data)
        to.close_connection = True


@contextmanager
def _open(shop: Shop) -> Iterator[Shop]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            shop.answer(self)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        shop.address = f"http://127.0.0.1:{server.server_address[1]}/image"
        try:
            yield shop
        finally:
            server.shutdown()
            thread.join()


def _use(base: Path, fetch: Any) -> bytes:
    with writer(base) as cache, cache.use(ID, fetch=fetch, size=len(CONTENT)) as path:
        return path.read_bytes()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Give a bound directory."""
    return bound_base(tmp_path)


def test_a_transfer_that_breaks_off_is_resumed(base: Path) -> None:
    """From where it was, as long as the server has the same file."""
    with _open(Shop(breaks=[100_000, 50_000])) as shop:
        assert _use(base, fetchers.from_url(shop.address)) == CONTENT
    assert shop.ranges == [None, "bytes=100000-", "bytes=150000-"]


def test_a_file_that_changed_is_begun_anew(base: Path) -> None:
    """Halves of two files are never put together."""
    with _open(Shop(content=b"x" * len(CONTENT), breaks=[1000])) as shop:

        def watch(done: int, _total: int | None) -> None:
            if done == 1000:
                shop.content, shop.tag = CONTENT, '"two"'

        assert _use(base, fetchers.from_url(shop.address, watch)) == CONTENT
    assert shop.ranges == [None, "bytes=1000-"]


def test_a_server_that_never_gets_further_is_given_up(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After as many tries in vain as are stated; a refusal is final at once."""
    monkeypatch.setattr(fetchers, "_PAUSE_S", 0.0)
    with _open(Shop(breaks=[10] + [0] * 50)) as shop:
        with pytest.raises(FetchError, match="10 of"):
            _use(base, fetchers.from_url(shop.address))
        assert len(shop.ranges) == 2 + fetchers.RESUMES
        shop.ranges.clear()
        shop.refuse = 404
        with pytest.raises(FetchError, match="404"):
            _use(base, fetchers.from_url(shop.address))
        assert len(shop.ranges) == 1
    with pytest.raises(FetchError, match="not an HTTP address"):
        fetchers.from_url("file:///etc/passwd")
    assert names_in(base) == set()


def test_a_transfer_of_unknown_length_needs_a_digest(base: Path) -> None:
    """It could break off and look whole; with a digest it cannot."""
    with _open(Shop(sized=False)) as shop, writer(base) as cache:
        fetch = fetchers.from_url(shop.address)
        with (
            pytest.raises(FetchError, match="how long it is"),
            cache.use(ID, fetch=fetch),
        ):
            pass
        assert names_in(base) == set()
        digest = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
        with cache.use(ID, fetch=fetch, digest=digest) as path:
            assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("to", ["ftp://127.0.0.1/x", "file:///etc/passwd"])
def test_a_server_that_leads_elsewhere_is_not_followed(base: Path, to: str) -> None:
    """A redirection stays within HTTP(S)."""
    with (
        _open(Shop(redirect=to)) as shop,
        pytest.raises(FetchError, match=r"not allowed|unknown url type"),
    ):
        _use(base, fetchers.from_url(shop.address))
    assert names_in(base) == set()


def test_a_server_that_tells_of_too_much_is_not_read(base: Path) -> None:
    """A length that is not the awaited one is refused before anything is written."""
    read: list[int] = []
    with _open(Shop(content=CONTENT * 2)) as shop:
        fetch = fetchers.from_url(shop.address, lambda done, _total: read.append(done))
        with pytest.raises(DamagedError, match="is to have"):
            _use(base, fetch)
    assert read == []


def test_an_error_of_the_storage_is_no_reason_to_ask_again(base: Path) -> None:
    """What cannot be written cannot be downloaded better."""
    with _open(Shop()) as shop:

        def fetch(partial: Partial) -> None:
            os.close(os.dup(partial.descriptor))
            read_only = os.open(os.devnull, os.O_RDONLY)
            os.dup2(read_only, partial.descriptor)
            os.close(read_only)
            fetchers.from_url(shop.address)(partial)

        with pytest.raises(Exception, match="Bad file descriptor"):
            _use(base, fetch)
    assert shop.ranges == [None]


def _run(base: Path, *arguments: str, stdin: str = "") -> tuple[int, Any, str]:
    done = subprocess.run(
        [*_COMMAND, *arguments, "-f", "json"],
        env=clean_environment(SHAREDCACHE_BASE=str(base), SHAREDCACHE_CLUSTER="c"),
        cwd=base.parent,
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    said = json.loads(done.stdout) if done.stdout else None
    return done.returncode, said, done.stderr


def test_fetch(base: Path, tmp_path: Path) -> None:
    """From a file or a program, once; what is wrong is one line and a code."""
    image = tmp_path / "image"
    image.write_bytes(CONTENT)
    digest = "sha1:" + hashlib.sha1(CONTENT).hexdigest()  # noqa: S324 - a checksum
    for fetched in (True, False):
        assert _run(base, "fetch", ID, str(image), "--digest", digest)[:2] == (
            0,
            {
                "image": ID,
                "name": NAME,
                "bytes": len(CONTENT),
                "fetched": fetched,
                "error": None,
            },
        )
    code, _, told = _run(base, "fetch", ID, str(image), "--digest", "sha1:" + "0" * 40)
    assert (code, told.count("\n")) == (1, 1)
    assert f"{NAME} is there with digest {digest}, and sha1:000" in told
    program = f"cat {image}"
    code, said, _ = _run(
        base, "fetch", KERNEL_ID, "--kind", "kernel", "--command", program
    )
    assert (code, said["name"]) == (0, digest_of(KERNEL_ID).hex())
    other = KERNEL_ID.replace("0", "9")
    code, _, told = _run(
        base, "fetch", other, str(image), "--digest", "md5:" + "0" * 32
    )
    assert (code, told.count("\n")) == (1, 1)
    assert "has digest md5:" in told
    assert _run(base, "fetch", other, "--command", "false")[0] == 1
    for wrong in ([other], [other, str(image), "--digest", "x"], ["", str(image)]):
        assert _run(base, "fetch", *wrong)[0] == 2
    code, _, told = _run(base, "fetch", other, str(image), "--reserve-percent", "99.99")
    assert (code, "reserved" in told) == (3, True)
    assert len(names_in(base)) == 2


def test_prefetch(base: Path, tmp_path: Path) -> None:
    """Every line is tried, whatever becomes of the others."""
    image = tmp_path / "image"
    image.write_bytes(CONTENT)
    ids = [f"image-{number}" for number in range(6)]
    lines = ["# id source kind digest", "", *(f"{one} {image}" for one in ids[:4])]
    lines += [f"{ids[4]} {tmp_path}/none", f"{ids[5]} -"]
    code, said, told = _run(
        base,
        "prefetch",
        "-",
        "--jobs",
        "3",
        "--command",
        "echo {id}",
        stdin="\n".join(lines),
    )
    assert (code, told) == (1, "sharedcache: 1 of 6 could not be had: see the table\n")
    assert [one["image"] for one in said] == ids
    assert [bool(one["error"]) for one in said] == [False] * 4 + [True, False]
    assert (base / said[5]["name"]).read_text() == f"{ids[5]}\n"
    assert len(names_in(base)) == 5


@pytest.mark.parametrize("grows", [False, True])
def test_a_file_that_changes_while_it_is_copied(
    base: Path, tmp_path: Path, *, grows: bool
) -> None:
    """Half of an image that is still being written is not the image."""
    image = tmp_path / "image"
    image.write_bytes(CONTENT)

    def watch(done: int, _total: int | None) -> None:
        if done == len(CONTENT):
            with image.open("r+b") as other:
                other.seek(0, os.SEEK_END if grows else os.SEEK_SET)
                other.write(b"more")
            os.utime(image, (1, 1))

    with pytest.raises(FetchError, match="changed while"), writer(base) as cache:
        cache.use(ID, fetch=fetchers.from_file(image, watch)).__enter__()
    assert names_in(base) == set()
    again = fetchers.from_file(image)
    with writer(base) as cache, cache.use(ID, fetch=again) as path:
        assert path.read_bytes() == image.read_bytes()


def test_a_thread_that_a_fetch_left_behind_reaches_no_file(base: Path) -> None:
    """After the fetch its partial file writes nothing and empties nothing."""
    left: list[Partial] = []

    def fetch(partial: Partial) -> None:
        left.append(partial)
        partial.write(CONTENT)

    with writer(base) as cache, cache.use(ID, fetch=fetch) as path:
        with pytest.raises(RuntimeError):
            left[0].write(b"late")
        with pytest.raises(OSError, match="Bad file descriptor"):
            left[0].restart()
        assert path.read_bytes() == CONTENT


def test_words_that_are_no_numbers_or_text(base: Path, tmp_path: Path) -> None:
    """Wrong usage is told as such, and an editor's mark is no part of an id."""
    image = tmp_path / "image"
    image.write_bytes(CONTENT)
    code, _, told = _run(base, "fetch", ID, str(image), "--reserve-percent", "nan")
    assert (code, "nan is not a number" in told) == (2, True)
    (tmp_path / "list").write_bytes(b"\xff\xfe\x00")
    code, _, told = _run(base, "prefetch", str(tmp_path / "list"))
    assert (code, "is no text" in told) == (2, True)
    (tmp_path / "list").write_bytes(b"\xef\xbb\xbf" + f"{ID} {image}\r\n".encode())
    assert _run(base, "prefetch", str(tmp_path / "list"))[0] == 0
    assert names_in(base) == {NAME}


def test_a_program_that_prints_nothing_is_killed(base: Path) -> None:
    """After the stall limit, as one that is run is; whoever asked is told."""
    limits = replace(QUICK, stall_s=0.5)
    fetch = fetchers.from_command("sleep", "1000")
    with writer(base, limits=limits) as cache, pytest.raises(LostLockError):
        cache.use(ID, fetch=fetch).__enter__()
    assert names_in(base) == set()


@pytest.mark.parametrize("waiting", [False, True])
def test_an_interrupt_ends_a_fetch(base: Path, *, waiting: bool) -> None:
    """Whether its own source is silent, or it waits for somebody else's fetch."""
    with NovaNameLocks(str(base.parent / "locks")) as locks:
        if waiting:
            assert locks.take(lock_name(NAME), 1.0, 1000.0)
        command = f"sh -c 'touch {base.parent}/began; exec sleep 1000'"
        with subprocess.Popen(
            [*_COMMAND, "fetch", ID, "--command", command],
            env=clean_environment(SHAREDCACHE_BASE=str(base), SHAREDCACHE_CLUSTER="c"),
            stderr=subprocess.PIPE,
            encoding="utf-8",
        ) as child:
            if waiting:
                # What asks for the lock runs; nothing else may begin.
                eventually(lambda: _helpers(child.pid), 30, "what asks for the lock")
            else:
                eventually((base.parent / "began").exists, 30, "the program")
            child.send_signal(signal.SIGINT)
            _, told = child.communicate(timeout=30)
    assert (child.returncode, told) == (1, "sharedcache: interrupted\n")
    assert names_in(base) == set()
    assert (base.parent / "began").exists() is not waiting


def _helpers(process: int) -> list[str]:
    """List a process's children, of all its threads."""
    tasks = Path(f"/proc/{process}/task").iterdir()
    return [one for task in tasks for one in (task / "children").read_text().split()]
