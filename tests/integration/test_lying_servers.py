"""HTTP servers that lie: what is not surely the file is never published."""

from __future__ import annotations

import hashlib
import re
import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from sharedcache.cache import fetchers
from sharedcache.cache.fetchers import FetchError
from tests.support.writers import CONTENT, bound_base, names_in, writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SIZE = len(CONTENT)
OTHER = bytes(byte ^ 1 for byte in CONTENT)
CUT = 100_000
Answer = list[bytes]


def _head(status: str = "200 OK", **fields: object) -> bytes:
    lines = [f"{key.replace('_', '-')}: {value}" for key, value in fields.items()]
    return "\r\n".join(
        [f"HTTP/1.1 {status}", *lines, "Connection: close\r\n\r\n"]
    ).encode()


def _part(start: int, end: int, total: object = SIZE, **fields: object) -> bytes:
    told = {
        "Content_Range": f"bytes {start}-{end - 1}/{total}",
        "ETag": '"1"',
        **fields,
    }
    kept = {key: value for key, value in told.items() if value is not None}
    return _head("206 Partial Content", Content_Length=end - start, **kept)


class Liar:
    """A server of one address.

    ``script`` maps a request's number, and the first byte that it asks for, if it
    asks for a part, to what is sent.
    """

    def __init__(self, script: Callable[[int, int | None], Answer]) -> None:
        self.script = script
        self.asked: list[int | None] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.listener.getsockname()[1]}/image"
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        # Ended by the listener's being shut down.
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                with client, suppress(OSError):
                    self._answer(client)

    def _answer(self, client: socket.socket) -> None:
        heard = b""
        while b"\r\n\r\n" not in heard:
            data = client.recv(65536)
            if not data:
                return
            heard += data
        part = re.search(rb"\r\nrange: bytes=([0-9]+)-", heard, re.IGNORECASE)
        start = int(part[1]) if part else None
        self.asked.append(start)
        for data in self.script(len(self.asked), start):
            client.sendall(data)

    def close(self) -> None:
        """Answer no more."""
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()


@contextmanager
def _lying(script: Callable[[int, int | None], Answer]) -> Iterator[Liar]:
    liar = Liar(script)
    try:
        yield liar
    finally:
        liar.close()


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a bound directory, to writers who do not pause between tries."""
    monkeypatch.setattr(fetchers, "_PAUSE_S", 0.0)
    return bound_base(tmp_path)


def _use(base: Path, address: str, digest: str | None = None) -> bytes:
    fetch = fetchers.from_url(address)
    with writer(base) as cache, cache.use("id", fetch=fetch, digest=digest) as path:
        return path.read_bytes()


def _beginning(**fields: object) -> Answer:
    return [_head(Content_Length=SIZE, **{"ETag": '"1"', **fields}), CONTENT[:CUT]]


PARTS: dict[str, tuple[dict[str, object], Callable[[int], Answer]]] = {
    "of another tag": ({}, lambda at: [_part(at, SIZE, ETag='"2"'), OTHER[at:]]),
    "of no tag": ({}, lambda at: [_part(at, SIZE, ETag=None), OTHER[at:]]),
    "of a weak tag": ({}, lambda at: [_part(at, SIZE, ETag='W/"1"'), OTHER[at:]]),
    "of another time": (
        {
            "ETag": 'W/"1"',
            "Last_Modified": "Sat, 28 Nov 2026 10:00:00 GMT",
            "Date": "Sat, 28 Nov 2026 11:00:00 GMT",
        },
        lambda at: [
            _part(at, SIZE, Last_Modified="Sat, 28 Nov 2026 10:00:01 GMT"),
            OTHER[at:],
        ],
    ),
    "from elsewhere": ({}, lambda at: [_part(0, SIZE - at), CONTENT[: SIZE - at]]),
    "of no range": (
        {},
        lambda at: [_part(at, SIZE, Content_Range=None), CONTENT[: SIZE - at]],
    ),
    "of several": (
        {},
        lambda at: [
            _part(
                at,
                SIZE,
                Content_Range=None,
                Content_Type="multipart/byteranges; boundary=x",
            ),
            CONTENT[: SIZE - at],
        ],
    ),
    "of a shorter file": (
        {},
        lambda at: [_part(at, 200_000, 200_000), CONTENT[at:200_000]],
    ),
    "of a longer file": ({}, lambda at: [_part(at, SIZE, SIZE + 1), CONTENT[at:]]),
    "with another length": (
        {},
        lambda at: [
            _part(at, 200_000, Content_Range=f"bytes {at}-{SIZE - 1}/{SIZE}"),
            CONTENT[at:200_000],
        ],
    ),
}


@pytest.mark.parametrize("lie", PARTS)
def test_a_part_that_does_not_fit_is_thrown_away(base: Path, lie: str) -> None:
    """It is not put together with what was there; the whole is asked for instead."""
    fields, part = PARTS[lie]

    def script(number: int, start: int | None) -> Answer:
        if start is not None:
            return part(start)
        if number == 1:
            return _beginning(**fields)
        return [_head(Content_Length=SIZE), CONTENT]

    with _lying(script) as liar:
        assert _use(base, liar.address) == CONTENT
    assert liar.asked == [None, CUT, None]


def test_a_server_whose_parts_never_fit_is_given_up(base: Path) -> None:
    """Beginning anew is no progress, however much comes each time."""

    def script(_number: int, start: int | None) -> Answer:
        if start is None:
            return _beginning()
        return [_part(start, SIZE, ETag='"2"'), OTHER[start:]]

    with _lying(script) as liar, pytest.raises(FetchError, match="ended at"):
        _use(base, liar.address)
    assert len(liar.asked) <= 2 + fetchers.RESUMES
    assert names_in(base) == set()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ([_part(0, 1000), CONTENT[:1000]], "another part"),
        ([_head("202 Accepted", Content_Length=4), b"wait"], "202 Accepted"),
        ([_head("203 Changed", Content_Length=4), b"else"], "203 Changed"),
        ([_head(Content_Length=4, Content_Encoding="gzip"), b"\x1f\x8b.."], "as gzip"),
        ([_head(Content_Length="+4"), b"four"], "contradicts"),
        ([_head(Content_Length="1_0"), b"0123456789"], "contradicts"),
        ([_head(Content_Length=-4), b"four"], "contradicts"),
        (
            [
                b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n",
                b"Content-Length: 9\r\n\r\n123456789",
            ],
            "contradicts",
        ),
    ],
)
def test_what_is_not_the_whole_file_as_it_is(
    base: Path, answer: Answer, why: str
) -> None:
    """A part, a promise, a transformed body or two lengths are not the file."""
    with (
        _lying(lambda *_: answer) as liar,
        pytest.raises(FetchError, match=why),
    ):
        _use(base, liar.address)
    assert names_in(base) == set()


def test_an_encoded_body_is_taken_if_its_digest_is_known(base: Path) -> None:
    """A server that calls the file itself encoded does no harm then."""
    digest = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
    answer = [_head(Content_Length=SIZE, Content_Encoding="x-gzip"), CONTENT]
    with _lying(lambda *_: answer) as liar:
        assert _use(base, liar.address, digest) == CONTENT


def test_a_part_of_the_rest_is_a_part(base: Path) -> None:
    """A server may give less than was asked for, and is asked for the rest."""

    def script(_number: int, start: int | None) -> Answer:
        if start is None:
            return _beginning()
        end = min(SIZE, start + CUT)
        return [_part(start, end, "*"), CONTENT[start:end]]

    with _lying(script) as liar:
        assert _use(base, liar.address) == CONTENT
    assert liar.asked == [None, CUT, 2 * CUT]


def test_a_range_that_is_not_there_means_another_file(base: Path) -> None:
    """A server that heeds no tag and has a shorter file by now is asked anew."""

    def script(number: int, start: int | None) -> Answer:
        if start is not None:
            return [_head("416 Range Not Satisfiable", Content_Length=0)]
        if number == 1:
            return _beginning()
        return [_head(Content_Length=50, ETag='"2"'), OTHER[:50]]

    with _lying(script) as liar:
        assert _use(base, liar.address) == OTHER[:50]
    assert liar.asked == [None, CUT, None]


def test_a_transfer_that_is_cut_within_a_piece_is_resumed(base: Path) -> None:
    """What tells the file from another is known before it breaks off."""

    def script(_number: int, start: int | None) -> Answer:
        if start is None:
            chunk = b"%x\r\n" % CUT + CONTENT[:CUT] + b"\r\n"
            return [_head(Transfer_Encoding="chunked", ETag='"1"'), chunk + b"zz\r\n"]
        return [_part(start, SIZE), CONTENT[start:]]

    with _lying(script) as liar:
        assert _use(base, liar.address) == CONTENT
    assert liar.asked == [None, CUT]


def test_replicas_that_differ_are_not_put_together(base: Path) -> None:
    """The tag is that of what is held, also when a second beginning breaks off."""

    def script(number: int, start: int | None) -> Answer:
        if number == 1:
            return _beginning()
        if number == 2:
            # Another replica has another file, and breaks off with an error.
            chunk = b"%x\r\n" % CUT + OTHER[:CUT] + b"\r\n"
            return [_head(Transfer_Encoding="chunked", ETag='"2"'), chunk + b"zz\r\n"]
        if start is None:
            return [_head(Content_Length=SIZE), CONTENT]
        # The first one again, which heeds no tag, and tells its own.
        return [_part(start, SIZE), CONTENT[start:]]

    with _lying(script) as liar:
        assert _use(base, liar.address) == CONTENT
    assert liar.asked == [None, CUT, CUT, None]
