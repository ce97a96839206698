"""The table of settings: our three sections, and what is read of Nova's.

oslo.config spells an option ``report-interval-s`` as ``report_interval_s`` in a
file and as ``--agent-report-interval-s`` on a command line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from oslo_config import cfg

SHAREDCACHE = "sharedcache"
AGENT = "agent"
CLEANER = "cleaner"
SECTIONS = (SHAREDCACHE, AGENT, CLEANER)

DEFAULT_HYPERVISORS = ("libvirtd", "virtqemud", "nova-compute")
DEFAULT_COMPUTE_SERVICE = "nova-compute.service"

IMAGE_AGE_S = 86400.0
RESIZED_AGE_S = 3600.0
PARTIAL_AGE_S = 86400.0


def _seconds(name: str, default: float | None, text: str) -> cfg.Opt:
    return cfg.FloatOpt(
        name, default=default, min=0, metavar="SECONDS", help=f"{text} (seconds)."
    )


def connection_options() -> list[cfg.Opt]:
    """Return what says where the cluster is; every program takes these."""
    return [
        cfg.StrOpt(
            "base",
            metavar="DIRECTORY",
            help="The shared image cache directory, Nova's _base. Default: the "
            "directory _base below instances_path, if that is known.",
        ),
        cfg.StrOpt(
            "zookeeper",
            metavar="SERVERS",
            help="ZooKeeper: host:port,host:port,... or a URL as tooz takes it, "
            "zookeeper://[user:password@]host:port,...?option=value.",
        ),
        cfg.StrOpt(
            "cluster",
            default="default",
            metavar="NAME",
            help="Name of the cluster: one directory and one tree of ZooKeeper.",
        ),
    ]


def sharedcache_options() -> list[cfg.Opt]:
    """Return the section ``[sharedcache]``."""
    return [
        *connection_options(),
        cfg.StrOpt(
            "lock-path",
            metavar="DIRECTORY",
            help="Nova's lock directory. Default: locks below instances_path, or "
            "beside the cache directory.",
        ),
        cfg.StrOpt(
            "log-form",
            default="text",
            choices=("text", "json"),
            help="Form of the log's lines: text, or json for one object a line "
            "and nothing else.",
        ),
    ]


def agent_options() -> list[cfg.Opt]:
    """Return the section ``[agent]``."""
    return [
        cfg.StrOpt("node", metavar="NAME", help="Node name. Default: the host's name."),
        cfg.ListOpt(
            "sources",
            metavar="NAME,NAME",
            help="Sources of use. Default: uses-file if uses_file is set, and "
            "instances if instances_path is set; libvirt and proc are named here.",
        ),
        cfg.StrOpt("uses-file", metavar="FILE", help="JSON file that names uses."),
        cfg.StrOpt(
            "instances-path",
            metavar="DIRECTORY",
            help="Nova's instances directory. Default: nova.conf's instances_path.",
        ),
        cfg.StrOpt(
            "libvirt-uri",
            default="qemu:///system",
            metavar="URI",
            help="Where the source libvirt connects to, read-only.",
        ),
        cfg.StrOpt(
            "compute-service",
            default=DEFAULT_COMPUTE_SERVICE,
            metavar="UNIT",
            help="The compute service's systemd unit; a report is sealed only once "
            "it was seen stopped.",
        ),
        cfg.ListOpt(
            "hypervisors",
            default=list(DEFAULT_HYPERVISORS),
            metavar="NAME,NAME",
            help="Processes that must see the cache directory as the agent does; "
            "one that sees another makes the report degraded. Empty: not looked at.",
        ),
        cfg.StrOpt(
            "socket",
            metavar="PATH",
            help="Unix socket on which drivers of this host declare what they use. "
            "Default: none; the shipped unit file sets /run/sharedcache/agent.sock.",
        ),
        _seconds("report-interval-s", 30.0, "How often the node looks at its uses"),
        _seconds("touch-interval-s", 3600.0, "How often a used file is touched"),
        _seconds("session-timeout-s", 10.0, "ZooKeeper's session timeout"),
        cfg.StrOpt(
            "kernel-naming",
            default="auto",
            choices=("auto", "raw-id", "sha1"),
            help="How this node names kernels: auto follows schema_version.",
        ),
        cfg.IntOpt(
            "schema-version",
            min=1,
            metavar="N",
            help="Schema version of this node. Default: the newest; 1 stands for a "
            "node of the old release.",
        ),
    ]


def _age(kind: str, what: str, default: str) -> cfg.Opt:
    return cfg.FloatOpt(
        f"min-age-{kind}-s",
        min=0,
        metavar="SECONDS",
        help=f"How long {what} stays unused before it may be removed (seconds). "
        f"Default: {default}.",
    )


def _shrink_options() -> list[cfg.Opt]:
    return [
        cfg.FloatOpt(
            "max-shrink-percent",
            default=50.0,
            metavar="PERCENT",
            help="Share of a node's uses that it may lose between two passes; 100: "
            "any.",
        ),
        cfg.IntOpt(
            "max-shrink-floor",
            default=20,
            metavar="FILES",
            help="A node that loses no more files, among those that nobody uses "
            "then, needs no approval.",
        ),
        _seconds(
            "shrink-lasts-s",
            259200.0,
            "How long a shrink must last to be believed without an approval",
        ),
    ]


def cleaner_options() -> list[cfg.Opt]:
    """Return the section ``[cleaner]``."""
    image = "min_age_image_s"
    return [
        _seconds("pass-interval-s", 300.0, "How often the whole directory is judged"),
        _seconds("session-timeout-s", 10.0, "ZooKeeper's session timeout"),
        _seconds("round-interval-s", 10.0, "Least distance between two rounds"),
        _seconds("grace-s", 3600.0, "How long a file stays in quarantine at least"),
        _age("image", "an image", "nova.conf's, or 86400"),
        _age("resized", "a resized copy", "nova.conf's, or 3600"),
        _age("kernel", "a kernel under its raw id", image),
        _age("swap", "a swap file", image),
        _age("ephemeral", "an ephemeral disk's file", image),
        _age("partial", "an unfinished download", "86400"),
        cfg.StrOpt(
            "missing-nodes",
            default="hold",
            choices=("hold", "last-report"),
            help="What a missing node does to purging: hold it back, or let the "
            "node's last report stand (a waiver: see the manual).",
        ),
        cfg.FloatOpt(
            "max-share-percent",
            default=20.0,
            metavar="PERCENT",
            help="Largest share of the files that one pass may take.",
        ),
        cfg.IntOpt(
            "max-share-floor",
            default=100,
            metavar="FILES",
            help="A pass that takes no more files than this needs no approval.",
        ),
        *_shrink_options(),
        cfg.IntOpt(
            "batch", default=1000, metavar="FILES", help="Files in one transaction."
        ),
        cfg.FloatOpt(
            "rate-per-s",
            default=0.0,
            min=0,
            metavar="FILES",
            help="Most renames and unlinks a second; 0: no limit.",
        ),
        cfg.FloatOpt(
            "low-water-percent",
            default=0.0,
            metavar="PERCENT",
            help="Share of free space below which low_water_grace_s takes the place "
            "of grace_s; 0: never.",
        ),
        _seconds(
            "low-water-grace-s",
            600.0,
            "Least time in quarantine while free space is below low_water_percent",
        ),
        cfg.BoolOpt(
            "auto-finalize",
            default=False,
            help="Finalize the newest schema as soon as every node supports it.",
        ),
    ]


def options_of(section: str) -> list[cfg.Opt]:
    """Return the options of one of our sections."""
    tables = {
        SHAREDCACHE: sharedcache_options,
        AGENT: agent_options,
        CLEANER: cleaner_options,
    }
    return tables[section]()


# Nova's own options, newest spelling first.  They are registered one by one and
# not as deprecated names of ours, because oslo.config would then complain about
# a nova.conf that is perfectly good.

Spelling = tuple[str, str]

NOVA_STATE: Sequence[Spelling] = (("DEFAULT", "state_path"),)
NOVA_INSTANCES: Sequence[Spelling] = (("DEFAULT", "instances_path"),)
NOVA_SUBDIRECTORY: Sequence[Spelling] = (
    ("image_cache", "subdirectory_name"),
    ("DEFAULT", "image_cache_subdirectory_name"),
    ("DEFAULT", "base_dir_name"),
)
NOVA_ORIGINAL_AGE: Sequence[Spelling] = (
    ("image_cache", "remove_unused_original_minimum_age_seconds"),
    ("DEFAULT", "remove_unused_original_minimum_age_seconds"),
    ("libvirt", "remove_unused_original_minimum_age_seconds"),
)
NOVA_RESIZED_AGE: Sequence[Spelling] = (
    ("image_cache", "remove_unused_resized_minimum_age_seconds"),
    ("libvirt", "remove_unused_resized_minimum_age_seconds"),
    ("DEFAULT", "remove_unused_resized_minimum_age_seconds"),
)


def nova_options() -> Iterator[tuple[str, cfg.Opt]]:
    """Give what is read of Nova's sections, each with its section."""
    for group, name in (*NOVA_STATE, *NOVA_INSTANCES, *NOVA_SUBDIRECTORY):
        yield group, cfg.StrOpt(name, help="Nova's own option.")
    for group, name in (*NOVA_ORIGINAL_AGE, *NOVA_RESIZED_AGE):
        yield group, cfg.FloatOpt(name, min=0, help="Nova's own option.")
