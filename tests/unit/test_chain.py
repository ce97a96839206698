"""Rules for walking a disk's whole backing chain."""

from __future__ import annotations

import errno
import json
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest

from sharedcache.adapters.instances import base as base_module
from sharedcache.adapters.instances import headers as headers_module
from sharedcache.adapters.instances.chain import MAX_DEPTH
from sharedcache.adapters.instances.filenames import Reference, references
from sharedcache.adapters.instances.qcow2 import RAW, ImageError
from sharedcache.core.names import leaf_of
from sharedcache.core.ports import SourceError
from tests.support.images import KERNEL, X, Y, names_of, qcow2

if TYPE_CHECKING:
    from pathlib import Path

LEAF = leaf_of(X, "0123456789abcdef", 7)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Return an empty cache directory."""
    directory = tmp_path / "_base"
    directory.mkdir()
    return directory


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Return the place of an instance's disk."""
    (tmp_path / "vm").mkdir()
    return tmp_path / "vm" / "disk"


def test_direct_and_indirect(base: Path, disk: Path) -> None:
    """Every image on the chain counts, not the first only."""
    (base / Y).write_bytes(b"raw")
    (base / X).write_bytes(qcow2(Y, "raw"))
    disk.write_bytes(qcow2(str(base / X), "qcow2"))
    assert names_of(base, disk) == {X, Y}


def test_relative_to_the_overlay(base: Path, disk: Path) -> None:
    """A relative name starts from the overlay's own directory."""
    (base / X).write_bytes(b"raw")
    disk.write_bytes(qcow2(f"../_base/{X}", "raw"))
    assert names_of(base, disk) == {X}


def test_relative_below_a_link(base: Path, disk: Path, tmp_path: Path) -> None:
    """A linked overlay's relative name starts where the link is, as in qemu."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    real = tmp_path / "a" / "b" / "image"
    real.write_bytes(qcow2(f"../_base/{X}", "raw"))
    disk.symlink_to(real)
    assert names_of(base, disk) == {X}


def test_missing_base_is_a_use(base: Path, disk: Path) -> None:
    """A name in the cache directory is used though its file is gone."""
    disk.write_bytes(qcow2(str(base / X), "qcow2"))
    assert names_of(base, disk) == {X}


def test_missing_elsewhere_is_doubt(base: Path, disk: Path) -> None:
    """A missing image elsewhere may itself have used anything."""
    disk.write_bytes(qcow2("/nowhere/image", "qcow2"))
    with pytest.raises(SourceError, match="/nowhere/image"):
        names_of(base, disk)


def test_missing_raw_under_a_cache_name(base: Path, disk: Path) -> None:
    """Another host may spell the cache directory otherwise: the name is in use."""
    disk.write_bytes(qcow2(f"/srv/there/_base/{X}", "raw"))
    assert names_of(base, disk) == {X}


@pytest.mark.parametrize(
    "name",
    [
        "/dev/fdset/1",
        "/dev/fd/3",
        "/dev/stdin",
        "/proc/self/fd/3",
        f"/proc/7/root/_base/{X}",
        'json:{"driver":"raw","file":{"driver":"file","filename":"/dev/fdset/1"}}',
        'json:{"driver":"raw","file":"node0"}',
        'json:{"driver":"qcow2","file":{"filename":"/d"},"backing":"node0"}',
    ],
)
def test_names_that_only_one_process_knows(base: Path, disk: Path, name: str) -> None:
    """What another process means by a descriptor or a block node is doubt."""
    disk.write_bytes(qcow2(name, "raw"))
    with pytest.raises(SourceError, match="qemu-img rebase -u"):
        names_of(base, disk)


@pytest.mark.parametrize(
    "root",
    [f"/x/_base/{X}", f"/x/_base/.sharedcache/epochs/7/{LEAF}", f"/{X}//deleted"],
)
def test_a_file_that_is_mounted_by_itself(
    base: Path, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str
) -> None:
    """A cache file that a bind mount shows under another path is used by that path."""
    shown = tmp_path / "any where"
    shown.write_bytes(b"raw")
    device = base.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    place = str(shown).replace(" ", "\\040")
    mounts = tmp_path / "mountinfo"
    monkeypatch.setattr(base_module, "_MOUNTINFO", str(mounts))
    disk.write_bytes(qcow2(str(shown), "raw"))
    for line, used in (
        (f"40 23 {number} {root} {place} rw - ext4 /dev/x rw", {X}),
        (f"40 23 {number} /x/data {place} rw - ext4 /dev/x rw", set()),
        (f"40 23 999:1 {root} {place} rw - ext4 /dev/x rw", set()),
        (f"40 23 {number} {root} /nowhere rw - ext4 /dev/x rw", set()),
        ("cut short", set()),
    ):
        mounts.write_text(f"{line}\n")
        assert names_of(base, disk) == used
    mounts.unlink()
    assert names_of(base, disk) == set()


def test_missing_raw_elsewhere_ends(base: Path, disk: Path) -> None:
    """A missing raw image had no chain of its own."""
    disk.write_bytes(qcow2("/nowhere/image", "raw"))
    assert names_of(base, disk) == set()


def test_raw_backing_is_not_probed(base: Path, disk: Path) -> None:
    """A backing file that the overlay calls raw has no chain, whatever it holds."""
    (base / X).write_bytes(qcow2(str(base / Y), "raw"))
    disk.write_bytes(qcow2(str(base / X), "raw"))
    assert names_of(base, disk) == {X}


def test_backing_without_format_is_probed(base: Path, disk: Path) -> None:
    """Without a format qemu probes, and so do we."""
    (base / X).write_bytes(qcow2(str(base / Y), "raw"))
    disk.write_bytes(qcow2(str(base / X)))
    assert names_of(base, disk) == {X, Y}


def test_qcow2_backing_that_is_not(base: Path, disk: Path) -> None:
    """An image used as qcow2 that is not one has a chain that is not known."""
    (base / X).write_bytes(b"raw")
    disk.write_bytes(qcow2(str(base / X), "qcow2"))
    with pytest.raises(SourceError, match="used as qcow2"):
        names_of(base, disk)


def test_data_file_is_a_reference(base: Path, disk: Path) -> None:
    """An external data file in the cache directory is used, and is not probed."""
    (base / X).write_bytes(qcow2(str(base / Y), "raw"))
    disk.write_bytes(qcow2(data_file=str(base / X)))
    assert names_of(base, disk) == {X}


def test_relative_data_file(base: Path, disk: Path) -> None:
    """A relative data file is doubt only if it may be a cache file."""
    disk.write_bytes(qcow2(data_file="data.raw"))
    assert names_of(base, disk) == set()
    disk.write_bytes(qcow2(data_file=X))
    with pytest.raises(SourceError, match="working directory"):
        names_of(base, disk)


def test_link_to_a_base(base: Path, disk: Path, tmp_path: Path) -> None:
    """A base file that is reached through links counts by its own name."""
    (base / X).write_bytes(b"raw")
    (tmp_path / "second").symlink_to(base / X)
    (tmp_path / "first").symlink_to("second")
    disk.write_bytes(qcow2(str(tmp_path / "first"), "raw"))
    assert names_of(base, disk) == {X}


def test_disk_that_is_a_link_to_a_base(base: Path, disk: Path) -> None:
    """A disk that is a link into the cache directory uses it, gone or not."""
    disk.symlink_to(base / X)
    assert names_of(base, disk) == {X}


def test_linked_directory(base: Path, disk: Path, tmp_path: Path) -> None:
    """The cache directory is known by identity, not by its spelling."""
    (base / X).write_bytes(b"raw")
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere" / "cache").symlink_to(base)
    disk.write_bytes(qcow2(str(tmp_path / "elsewhere/deep/../cache" / X), "raw"))
    assert names_of(base, disk) == {X}


def test_parent_behind_a_link_is_the_kernels(
    base: Path, disk: Path, tmp_path: Path
) -> None:
    """``..`` behind a link leads where the link leads, not where text says."""
    (tmp_path / "other" / "inner").mkdir(parents=True)
    (tmp_path / "vm" / "link").symlink_to(tmp_path / "other" / "inner")
    (tmp_path / "other" / X).write_bytes(b"raw")
    disk.write_bytes(qcow2(f"link/../{X}", "raw"))
    assert names_of(base, disk) == set()
    assert names_of(tmp_path / "other", disk) == {X}


def test_unresolvable_parent_is_compared_by_text(base: Path, disk: Path) -> None:
    """A path whose directory is gone still counts if it spells the cache's."""
    spelled = base.parent / "gone" / ".." / base.name / X
    disk.write_bytes(qcow2(str(spelled), "raw"))
    assert names_of(base, disk) == {X}


def test_second_mount_of_the_same_storage(
    base: Path, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same storage mounted twice differs in device number only."""
    (base / X).write_bytes(b"raw")
    (base / ".sharedcache").mkdir()
    (base / ".sharedcache" / "cluster").write_bytes(b"identity")
    second = tmp_path / "second"
    second.symlink_to(base)
    disk.write_bytes(qcow2(str(second / X), "raw"))
    real = base_module.paths.status_of

    def with_another_device(path: str) -> os.stat_result:
        status = list(real(path))
        status[2] += 1
        return os.stat_result(status)

    monkeypatch.setattr(base_module.paths, "status_of", with_another_device)
    assert names_of(base, disk) == {X}
    (base / ".sharedcache" / "cluster").unlink()
    assert names_of(base, disk) == set()


def test_unrecognised_names_are_ignored(base: Path, disk: Path) -> None:
    """A name that the grammar does not recognise is never touched anyway."""
    (base / "notes").write_bytes(qcow2(KERNEL, "raw"))
    disk.write_bytes(qcow2(str(base / "notes"), "qcow2"))
    assert names_of(base, disk) == {KERNEL}


@pytest.mark.parametrize(
    "name", ["nbd:host:10809", "https://host/image", "rbd:pool/image", "what:ever"]
)
def test_networks_end_a_chain(base: Path, disk: Path, name: str) -> None:
    """A protocol that is no file ends the chain without a use."""
    disk.write_bytes(qcow2(name, "raw"))
    assert names_of(base, disk) == set()


def _file(path: object) -> dict[str, object]:
    return {"driver": "file", "filename": str(path)}


def test_json_spellings(base: Path, disk: Path) -> None:
    """Nested, dotted, filtered and driverless JSON names are all understood."""
    (base / Y).write_bytes(b"raw")
    (base / X).write_bytes(qcow2(str(base / Y), "raw"))
    path = str(base / X)
    spellings: list[dict[str, object]] = [
        {"driver": "qcow2", "file": _file(path)},
        {"driver": "qcow2", "file.driver": "file", "file.filename": path},
        {"driver": "qcow2", "file": {"filename": path}},
        {"driver": "raw", "file": {"driver": "qcow2", "file": _file(path)}},
        {"driver": "throttle", "throttle-group": "g", "file": _file(path)},
        {"driver": "quorum", "children": [{"driver": "qcow2", "file": _file(path)}]},
        {"file.filename": path},
        {"filename": path},
        {"filename": "file:" + path},
    ]
    for spelling in spellings:
        disk.write_bytes(qcow2("json:" + json.dumps(spelling)))
        assert names_of(base, disk) == {X, Y}, spelling


def test_json_format_overrides(base: Path, disk: Path) -> None:
    """Raw in the options, or the image's own word for it, stops the probing."""
    (base / X).write_bytes(qcow2(str(base / Y), "raw"))
    raw = "json:" + json.dumps({"driver": "raw", "file": _file(base / X)})
    disk.write_bytes(qcow2(raw))
    assert names_of(base, disk) == {X}
    bare = "json:" + json.dumps(_file(base / X))
    disk.write_bytes(qcow2(bare))
    assert names_of(base, disk) == {X}
    cow = "json:" + json.dumps({"driver": "qcow2", "file": _file(base / X)})
    disk.write_bytes(qcow2(cow, "raw"))
    assert names_of(base, disk) == {X}


@pytest.mark.parametrize(
    "between",
    [
        {"driver": "raw", "offset": 65536},
        {"driver": "raw", "offset": "65536"},
        {"driver": "qcow2"},
        {"driver": "luks"},
        {"driver": "quorum", "children": []},
        {"driver": "blkdebug", "image": {"driver": "file"}},
    ],
)
@pytest.mark.parametrize("outer", ["qcow2", None])
def test_image_within_another(
    base: Path, disk: Path, between: dict[str, object], outer: str | None
) -> None:
    """An image whose header lies within another's content is doubt, never raw."""
    options = {"driver": outer, "file": {**between, "file": _file(base / X)}}
    disk.write_bytes(qcow2("json:" + json.dumps(options), outer))
    with pytest.raises(SourceError, match="inside of another image"):
        names_of(base, disk)


def test_image_that_is_passed_on(base: Path, disk: Path) -> None:
    """Raw and filters between an image and its file leave the header where it is."""
    (base / Y).write_bytes(b"raw")
    (base / X).write_bytes(qcow2(str(base / Y), "raw"))
    for between in (
        {"driver": "raw"},
        {"driver": "raw", "offset": 0},
        {"driver": "throttle", "throttle-group": "g"},
    ):
        options = {"driver": "qcow2", "file": {**between, "file": _file(base / X)}}
        disk.write_bytes(qcow2("json:" + json.dumps(options), "qcow2"))
        assert names_of(base, disk) == {X, Y}, between


@pytest.mark.parametrize(
    "text",
    [
        "# Disk DescriptorFile\nversion=1\n",
        "version=3\r\nCID=fffffffe\r\n",
        "# made by hand\n  \n#\nversion=2\nCID=fffffffe\n",
    ],
)
def test_vmdk_descriptors(base: Path, disk: Path, text: str) -> None:
    """A text that qemu takes for a VMDK descriptor names files: it is doubt."""
    disk.write_text(f'{text}RW 8 FLAT "{base}/{X}" 0\n')
    with pytest.raises(SourceError, match="VMDK image of several files"):
        names_of(base, disk)
    # Anything at all may be a descriptor for whom an image names the format.
    disk.write_text("CID=fffffffe\n")
    assert names_of(base, disk) == set()
    with pytest.raises(SourceError, match="used as vmdk"):
        names_of(base, disk, "vmdk")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="makes a device node")
@pytest.mark.parametrize("image_format", ["raw", None])
def test_loop_device(
    base: Path,
    disk: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    image_format: str | None,
) -> None:
    """A loop device, or a partition on one, uses the cache file that it stands for."""
    node = tmp_path / "node"
    os.mknod(node, 0o600 | stat.S_IFBLK, os.makedev(7, 4095))
    said, part = tmp_path / "7:4095", tmp_path / "part-of-7:4095"
    patterns = (f"{tmp_path}/{{}}:{{}}", f"{tmp_path}/part-of-{{}}:{{}}")
    monkeypatch.setattr(base_module, "_LOOPS", patterns)
    real = headers_module._read_once

    def read(path: str) -> object:
        return (RAW, (), ()) if path == str(node) else real(path)

    monkeypatch.setattr(headers_module, "_read_once", read)
    disk.write_bytes(qcow2(str(node), image_format))
    assert names_of(base, disk) == set()
    for file in (said, part):
        for path, used in (
            (f"/x/_base/{X}", {X}),
            (f"/x/_base/{X} (deleted)", {X}),
            (f"/x/_base/.sharedcache/epochs/7/{LEAF}", {X}),
            ("/x/data", set()),
        ):
            file.write_text(f"{path}\n")
            assert names_of(base, disk) == used
    said.unlink()
    said.mkdir()
    with pytest.raises(SourceError, match="let the agent read it"):
        names_of(base, disk)


def test_json_network_and_overridden_backing(base: Path, disk: Path) -> None:
    """A network's options are no file; a backing file given in options counts."""
    nbd = {"driver": "raw", "file": {"driver": "nbd", "server": {"path": "/x"}}}
    disk.write_bytes(qcow2("json:" + json.dumps(nbd)))
    assert names_of(base, disk) == set()
    nbd["backing"] = {"driver": "raw", "file": _file(base / X)}
    disk.write_bytes(qcow2("json:" + json.dumps(nbd)))
    assert names_of(base, disk) == {X}


@pytest.mark.parametrize(
    "name",
    [
        "json:",
        "json:[]",
        "json:{'driver': 'raw'}",
        'json:{"file": "a", "file.filename": "/b"}',
        'json:{"driver": "raw", "driver": "qcow2"}',
        'json:{"driver": "raw", "file.filename": "relative"}',
        'json:{"driver": {}, "file.filename": "/b"}',
        'json:{"filename": "/nul\\u0000"}',
        'json:{"filename": "/half\\ud800"}',
        'json:{"a":' + "[" * 500,
        "file:relative",
        "blkdebug:conf:/image",
        "fat:/directory",
        'json:{"driver":"vvfat","dir":"/directory"}',
    ],
)
def test_names_in_doubt_are_errors(base: Path, disk: Path, name: str) -> None:
    """A name that cannot be understood, or starts from an unknown place, is doubt."""
    disk.write_bytes(qcow2(name))
    with pytest.raises(SourceError, match="disk"):
        names_of(base, disk)


def test_deep_nesting_is_no_recursion_error() -> None:
    """Options nested as deep as a name allows are understood or doubt."""
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        depth = 1000 // (len(opening) + 1)
        name = 'json:{"a":' + opening * depth + "1" + closing * depth + "}"
        try:
            assert references(name, None, "/") == ()
        except ImageError as error:
            assert "deep" in str(error)  # noqa: PT017 - either outcome is right


def test_file_prefix() -> None:
    """``file:`` is only a prefix; a colon behind a slash is none."""
    assert references("file:/a/b", "raw", "/x") == (Reference("/a/b", "raw"),)
    assert references("./a:b", None, "/x") == (Reference("/x/./a:b", None),)
    with pytest.raises(ImageError, match="no file name"):
        references("/a\0b", None, "/x")


def test_loops_end(base: Path, disk: Path) -> None:
    """A chain that comes back to itself ends, with all its names."""
    (base / X).write_bytes(qcow2(f"../vm/{disk.name}", "qcow2"))
    disk.write_bytes(qcow2(f"../_base/{X}", "qcow2"))
    assert names_of(base, disk) == {X}


def test_depth_is_bounded(base: Path, disk: Path) -> None:
    """A chain of the greatest depth is walked whole, a deeper one is an error."""
    disk.write_bytes(qcow2("1", "qcow2"))
    for number in range(1, MAX_DEPTH - 1):
        (disk.parent / str(number)).write_bytes(qcow2(str(number + 1), "qcow2"))
    last = disk.parent / str(MAX_DEPTH - 1)
    last.write_bytes(qcow2())
    assert names_of(base, disk) == set()
    last.write_bytes(qcow2(str(base / X), "raw"))
    assert names_of(base, disk) == {X}
    (base / X).write_bytes(b"raw")
    with pytest.raises(SourceError, match="deeper than 200"):
        names_of(base, disk)


def test_link_loop_is_an_error(base: Path, disk: Path) -> None:
    """Links that lead to each other are an error, not an endless walk."""
    (disk.parent / "a").symlink_to("b")
    (disk.parent / "b").symlink_to("a")
    disk.write_bytes(qcow2("a", "raw"))
    with pytest.raises(SourceError, match="links"):
        names_of(base, disk)


def test_fifo_does_not_hang(base: Path, disk: Path) -> None:
    """What is no file is not opened, so nothing can hang on it."""
    os.mkfifo(disk.parent / "pipe")
    disk.write_bytes(qcow2("pipe"))
    assert names_of(base, disk) == set()
    assert names_of(base, disk.parent / "pipe") == set()


def test_character_device_is_not_opened(
    base: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening some devices has effects, so only files and volumes are opened."""
    disk.write_bytes(qcow2("/dev/null"))
    opened: list[object] = []
    real = os.open

    def noting(path: object, *args: object, **kwargs: object) -> object:
        opened.append(path)
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", noting)
    assert names_of(base, disk) == set()
    assert opened == [str(base), str(disk)]


def test_vanished_disk(base: Path, disk: Path) -> None:
    """A disk that is not there is told apart from one that cannot be read."""
    with pytest.raises(FileNotFoundError):
        names_of(base, disk)


def test_dangling_disk_is_doubt(base: Path, disk: Path) -> None:
    """A disk that is a link to nothing may be a volume not activated yet."""
    disk.symlink_to("/nowhere/volume")
    with pytest.raises(SourceError, match="activate"):
        names_of(base, disk)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("at", ["parent", "status", "open"])
def test_doubt_names_the_path(
    base: Path,
    disk: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    at: str,
) -> None:
    """An error of the system on the way is a failure that names the path."""
    (base / X).write_bytes(qcow2())
    disk.write_bytes(qcow2(str(base / X), "qcow2"))
    function = {"parent": "stat", "status": "lstat", "open": "open"}[at]
    target = str(base) if at == "parent" else str(base / X)
    real = getattr(os, function)

    def failing(path: object, *args: object, **kwargs: object) -> object:
        if path == target:
            raise OSError(number, os.strerror(number))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, function, failing)
    with pytest.raises(SourceError, match=os.strerror(number)) as caught:
        names_of(base, disk)
    assert target in str(caught.value)


@pytest.mark.parametrize("what", ["marker", "mounted"])
def test_doubt_about_the_cache_directory(
    base: Path,
    disk: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    """What would show a second way into the cache, and cannot be looked at, fails."""
    device = base.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"40 23 {number} /x/_base/{X} /shown rw - ext4 /dev/x rw\n")
    monkeypatch.setattr(base_module, "_MOUNTINFO", str(mounts))
    target = {"marker": f"{base}/.sharedcache/cluster", "mounted": "/shown"}[what]
    real = os.stat

    def failing(path: Any, *args: Any, **options: Any) -> os.stat_result:
        if path == target:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, *args, **options)

    monkeypatch.setattr(os, "stat", failing)
    disk.write_bytes(qcow2())
    with pytest.raises(SourceError, match=target):
        names_of(base, disk)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EINVAL, errno.EACCES])
def test_a_link_that_changes_while_it_is_followed(
    base: Path, disk: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """One that was replaced is looked at again; one that cannot be read is doubt."""
    link = disk.with_name("link")
    link.symlink_to(base / X)
    (base / X).write_bytes(b"raw")
    disk.write_bytes(qcow2(str(link), "raw"))
    real, failures = os.readlink, [OSError(number, os.strerror(number))]

    def racing(path: str) -> str:
        if path == str(link) and failures:
            raise failures.pop()
        return real(path)

    monkeypatch.setattr(os, "readlink", racing)
    if number == errno.EACCES:
        with pytest.raises(SourceError, match=f"{link}: {os.strerror(number)}"):
            names_of(base, disk)
    else:
        assert names_of(base, disk) == {X}


def test_a_base_that_vanishes_before_it_is_read(
    base: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name is used all the same."""
    (base / X).write_bytes(qcow2())
    disk.write_bytes(qcow2(str(base / X), "qcow2"))
    real = os.open

    def gone(path: str, *args: Any, **options: Any) -> int:
        if path == str(base / X):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", gone)
    assert names_of(base, disk) == {X}


def test_a_file_that_is_replaced_before_it_is_read(tmp_path: Path) -> None:
    """Neither a link that came in its place is followed, nor a fifo waited for."""
    (tmp_path / "file").write_bytes(qcow2())
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "fifo"):
        with pytest.raises(ImageError, match="replaced"):
            headers_module._read_once(str(tmp_path / name))


def test_base_must_be_there(tmp_path: Path) -> None:
    """Without the cache directory nothing can be compared."""
    with pytest.raises(SourceError, match="mount it"):
        names_of(tmp_path / "none", tmp_path / "disk")
