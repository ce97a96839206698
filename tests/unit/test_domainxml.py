"""What a domain's XML refers to, whatever form it takes."""

from __future__ import annotations

import pytest

from sharedcache.adapters.libvirt.domainxml import DomainXmlError, File, read

X, Y = "a" * 40, "b" * 40
IMAGE = "11111111-2222-3333-4444-555555555555"
QEMU = 'xmlns:q="http://libvirt.org/schemas/domain/qemu/1.0"'


def disks(xml: str) -> list[tuple[str, str | None, bool]]:
    """Read the files of disks from what stands between ``<devices>``."""
    found = read(f"<domain><name>g</name><devices>{xml}</devices></domain>").disks
    return [(one.path, one.format, one.whole) for one in found]


def boot(xml: str) -> list[str]:
    """Read paths that are no disks."""
    return list(read(f"<domain><name>g</name>{xml}</domain>").boot)


def test_a_chain_that_is_listed_to_its_end() -> None:
    """Every file of the chain counts, each with its own format."""
    assert disks(
        '<disk type="file"><driver type="qcow2"/><source file="/d"/>'
        f'<backingStore type="file"><format type="raw"/><source file="/b/{X}"/>'
        "<backingStore/></backingStore></disk>"
    ) == [("/d", "qcow2", True), (f"/b/{X}", "raw", True)]


def test_a_chain_that_is_not_listed() -> None:
    """Without an empty element at its end the chain goes on, as far as is known."""
    assert disks('<disk type="file"><source file="/d"/></disk>') == [
        ("/d", None, False)
    ]
    assert disks(
        '<disk type="file"><source file="/d"/>'
        '<backingStore type="file"><source file="/e"/></backingStore></disk>'
    ) == [("/d", None, False), ("/e", None, False)]


def test_a_copy_under_way() -> None:
    """What a disk is being copied to is used, in both forms that libvirt has had."""
    assert disks(
        '<disk type="file"><source file="/d"/><mirror type="file" job="copy">'
        f'<format type="qcow2"/><source file="/m"/><backingStore type="file">'
        f'<format type="raw"/><source file="/b/{X}"/></backingStore></mirror></disk>'
    ) == [("/d", None, False), ("/m", "qcow2", False), (f"/b/{X}", "raw", False)]


def test_a_data_file() -> None:
    """The file that holds an image's data is used beside it."""
    assert disks(
        '<disk type="file"><driver type="qcow2"/><source file="/d">'
        f'<dataStore type="file"><format type="raw"/><source file="/b/{X}"/>'
        "</dataStore></source></disk>"
    ) == [("/d", "qcow2", False), (f"/b/{X}", "raw", False)]


def test_files_below_a_network_disk() -> None:
    """What lies on a network is nobody's cache file; what is below it may be."""
    assert disks(
        '<disk type="network"><driver type="qcow2"/><source protocol="rbd" name="p/i">'
        '<host name="h"/></source><backingStore type="file"><format type="raw"/>'
        f'<source file="/b/{X}"/><backingStore/></backingStore></disk>'
    ) == [(f"/b/{X}", "raw", True)]


@pytest.mark.parametrize(
    "disk",
    [
        '<disk type="network"><source protocol="nbd" name="x"/></disk>',
        '<disk type="nvme"><source type="pci" namespace="1"/></disk>',
        '<disk type="vhostuser"><source type="unix" path="/s"/></disk>',
        '<disk type="vhostvdpa"><source dev="/dev/vhost-vdpa-0"/></disk>',
        '<disk type="dir"><source dir="/d"/></disk>',
        '<disk type="file" device="cdrom"><target dev="sda"/></disk>',
        '<disk type="file" device="cdrom"><source startupPolicy="optional"/></disk>',
        '<disk type="block"><source dev="/dev/sdx" index="1"/></disk>',
    ],
)
def test_disks_that_are_no_cache_files(disk: str) -> None:
    """Networks, devices and empty drives name no cache file."""
    assert [path for path, _, _ in disks(disk) if X in path] == []


def test_a_disk_of_a_later_libvirt() -> None:
    """A kind of disk that is not known may refer to anything: doubt."""
    with pytest.raises(DomainXmlError, match="'crystal'"):
        disks('<disk type="crystal"><source lattice="/b"/></disk>')


@pytest.mark.parametrize(
    ("image_format", "offset", "known"),
    [("qcow2", "65536", False), ("qcow2", "0", True), ("raw", "65536", True)],
)
def test_slices(image_format: str, offset: str, *, known: bool) -> None:
    """An image within a file has its header elsewhere, and is not understood."""
    xml = (
        '<domain><name>g</name><disk type="file">'
        f'<driver type="{image_format}"/><source file="/i/d"><slices>'
        f'<slice type="storage" offset="{offset}" size="4096"/></slices></source>'
        "</disk></domain>"
    )
    if known:
        assert [file.path for file in read(xml).disks] == ["/i/d"]
        return
    with pytest.raises(DomainXmlError, match="a slice of /i/d"):
        read(xml)


def test_volumes() -> None:
    """A volume's path is libvirt's to tell."""
    (found,) = read(
        '<domain><devices><disk type="volume"><driver type="raw"/>'
        '<source pool="p" volume="v"/></disk></devices></domain>'
    ).disks
    assert found == File("", "raw", whole=False, pool="p", volume="v")


@pytest.mark.parametrize(
    "xml",
    [
        f"<os><kernel>/b/{X}</kernel></os>",
        f"<os><initrd>/b/{X}</initrd></os>",
        f"<os><dtb>/b/{X}</dtb></os>",
        f"<os><loader>/b/{X}</loader></os>",
        f'<os><nvram template="/b/{X}">/n</nvram></os>',
        f'<devices><serial type="file"><source path="/b/{X}"/></serial></devices>',
        f'<devices><tool><part at="/b/{X}"/></tool></devices>',
    ],
)
def test_any_path_that_ends_like_a_cache_file(xml: str) -> None:
    """Whatever a path is there for, it refers."""
    assert f"/b/{X}" in boot(xml)


def test_paths_that_do_not() -> None:
    """Other paths, and names that are no paths, are left alone."""
    xml = f"<os><loader>/usr/share/x.fd</loader></os><note>{X}</note>"
    assert boot(xml) == []
    # They may be links to a cache file all the same.
    described = read(f"<domain><name>g</name>{xml}</domain>")
    assert described.others == ("/usr/share/x.fd",)


def test_what_is_handed_on() -> None:
    """Paths in arguments, environment and overrides are found, however they stand."""
    passed = read(
        f"<domain {QEMU}><name>g</name><q:commandline>"
        '<q:arg value="-drive"/><q:arg value="file=/i/d1,format=qcow2"/>'
        """<q:arg value='{"driver":"file","filename":"/i/d2"}'/>"""
        '<q:env name="D" value="/i/d3"/></q:commandline>'
        '<q:override><q:device alias="x">'
        '<q:frontend><q:property name="p" type="string" value="/i/d4"/></q:frontend>'
        "</q:device></q:override></domain>"
    ).passed
    assert passed == ("/i/d1", "/i/d2", "/i/d3", "/i/d4")


@pytest.mark.parametrize(
    ("argument", "path"),
    [
        ("file=/i x/d,format=qcow2", "/i x/d"),
        ("file=/i,,x/d,format=qcow2", "/i,x/d"),
        ("format=qcow2,file=/i x/d", "/i x/d"),
        ("/i x/d", "/i x/d"),
        ("-drive file=/i/d -S", "/i/d"),
        ("{'filename': '/i x/d'}", "/i x/d"),
    ],
)
def test_odd_paths_that_are_handed_on(argument: str, path: str) -> None:
    """Blanks end a path or belong to it, and a doubled comma is one: all are tried."""
    passed = read(
        f'<domain {QEMU}><q:commandline><q:arg value="{argument}"/></q:commandline>'
        "</domain>"
    ).passed
    assert path in passed


def test_nova() -> None:
    """The image of the root disk, in the running form and in a snapshot's."""
    metadata = (
        '<metadata><n:instance xmlns:n="http://openstack.org/xmlns/libvirt/nova/1.1">'
        f'<n:root type="image" uuid="{IMAGE}"/></n:instance></metadata>'
    )
    assert read(f"<domain>{metadata}</domain>").images == (IMAGE,)
    snapshot = f"<domainsnapshot><domain>{metadata}</domain></domainsnapshot>"
    assert read(snapshot).images == (IMAGE,)
    other = metadata.replace('type="image"', 'type="volume"')
    assert read(f"<domain>{other}</domain>").images == ()
    odd = metadata.replace(IMAGE, "not-an-id")
    assert read(f"<domain>{odd}</domain>").images == ()


@pytest.mark.parametrize("text", ["", "<domain>", "<domain/><domain/>", "\x00"])
def test_what_is_no_xml(text: str) -> None:
    """What cannot be read is doubt."""
    with pytest.raises(DomainXmlError):
        read(text)
