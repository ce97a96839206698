"""Settings: what overrides what, what Nova's file gives, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sharedcache.adapters.settings import Settings, SettingsError, parser, read
from sharedcache.adapters.settings.reading import is_ours
from sharedcache.cli.sources import build_sources
from sharedcache.core.model import KernelNaming
from sharedcache.core.names import Kind
from sharedcache.core.policy import MissingNodes, PolicyError
from sharedcache.core.schema import SCHEMAS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NOVA = """
[DEFAULT]
state_path = /srv/nova
instances_path = $state_path/instances
log_dir = /var/log/nova
transport_url = rabbit://nobody:secret@rabbit
[image_cache]
remove_unused_original_minimum_age_seconds = 100
remove_unused_resized_minimum_age_seconds = 50
unheard_of = 1
"""


def _read(
    *files: Path,
    arguments: tuple[str, ...] = (),
    section: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    named = [f"--config-file={file}" for file in files]
    return read(parser(section), [*named, *arguments], environ or {})


def _written(directory: Path, text: str, name: str = "a.conf") -> Path:
    path = directory / name
    path.write_text(text)
    return path


def test_without_any_file_the_defaults_are_those_of_the_design() -> None:
    """The policies' own defaults and the settings' say the same."""
    settings = _read()
    assert (settings.base, settings.zookeeper) == ("", "")
    assert settings.cluster == "default"
    policy = settings.cleaner.policy()
    assert policy.grace_s == 3600
    assert policy.min_age_ns(Kind.IMAGE) == 86400 * 10**9
    assert policy.min_age_ns(Kind.RESIZED) == 3600 * 10**9
    assert policy.missing_nodes is MissingNodes.HOLD
    assert policy == type(policy)()
    agent = settings.agent.policy()
    assert agent == type(agent)(node=agent.node)
    assert agent.schema_version == SCHEMAS.newest


def test_every_brake_and_mark_is_read(tmp_path: Path) -> None:
    """Each setting reaches the policy under its own name."""
    wanted = {
        "max_share_percent": 1.5,
        "max_share_floor": 2,
        "max_shrink_percent": 3.5,
        "max_shrink_floor": 4,
        "shrink_lasts_s": 5.5,
        "batch": 6,
        "rate_per_s": 7.5,
        "low_water_percent": 8.5,
        "low_water_grace_s": 9.5,
    }
    lines = "".join(f"{name} = {value}\n" for name, value in wanted.items())
    policy = _read(_written(tmp_path, f"[cleaner]\n{lines}")).cleaner.policy()
    assert {name: getattr(policy, name) for name in wanted} == wanted


def test_options_override_the_environment_which_overrides_files(
    tmp_path: Path,
) -> None:
    """Wherever an option stands on the command line, it wins."""
    file = _written(
        tmp_path, "[sharedcache]\nbase=/file\nzookeeper=file:1\ncluster=file\n"
    )
    environ = {"SHAREDCACHE_BASE": "/environment", "SHAREDCACHE_ZOOKEEPER": "env:1"}
    arguments = ["--base", "/option", "--config-file", str(file)]
    settings = read(parser(), arguments, environ)
    assert settings.base == "/option"
    assert settings.zookeeper == "env:1"
    assert settings.cluster == "file"


def test_the_environment_names_files_unless_an_option_does(tmp_path: Path) -> None:
    """Later files override earlier ones."""
    one = _written(tmp_path, "[sharedcache]\ncluster=one\nbase=/one\n", "one.conf")
    two = _written(tmp_path, "[sharedcache]\ncluster=two\n", "two.conf")
    environ = {"SHAREDCACHE_CONFIG": f"{one}:{two}"}
    both = _read(environ=environ)
    assert (both.cluster, both.base) == ("two", "/one")
    assert _read(one, environ=environ).cluster == "one"
    assert _read(one, environ=environ).files == (str(one),)


@pytest.mark.parametrize(
    "option",
    [
        "--agent-report-interval-s=0.25",
        "--agent-report_interval_s=0.25",
    ],
)
def test_a_daemons_settings_are_its_options_too(tmp_path: Path, option: str) -> None:
    """Both spellings of an option mean the one setting, and override files."""
    file = _written(tmp_path, "[agent]\nreport_interval_s = 7\ntouch_interval_s = 8\n")
    settings = _read(file, arguments=(option,), section="agent")
    assert settings.agent.report_interval_s == 0.25
    assert settings.agent.touch_interval_s == 8


def test_a_directory_of_files_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    """Later files win, and a directory stands among the files where it is named."""
    place = tmp_path / "conf.d"
    place.mkdir()
    _written(place, "[sharedcache]\ncluster = b\nbase = /b\n", "20.conf")
    _written(place, "[sharedcache]\ncluster = a\nbase = /a\n", "10.conf")
    _written(place, "nonsense", "30.conf~")
    last = _written(tmp_path, "[sharedcache]\ncluster = c\n")
    read_in = read(parser(), ["--config-dir", str(place), f"--config-file={last}"], {})
    assert (read_in.base, read_in.cluster) == ("/b", "c")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--config-file",), "--config-file needs a path"),
        (("--config-dir=",), "--config-dir needs a path"),
        (("--config-dir=/nowhere",), "no file /nowhere/*.conf is there"),
        (("--config-fil={other}",), "in full"),
    ],
)
def test_files_that_are_not_named_right(
    tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    """Never the default files in their place: those may be another cluster's."""
    other = _written(tmp_path, "[sharedcache]\nbase = /other\n")
    given = [one.format(other=other) for one in arguments]
    with pytest.raises(SettingsError) as caught:
        read(parser(), given, {"SHAREDCACHE_CONFIG": str(other)})
    assert words in str(caught.value)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    """It is named, in one line."""
    bad = tmp_path / "a.conf"
    bad.write_bytes(b"[sharedcache]\nbase = \xff\n")
    with pytest.raises(SettingsError, match=f"{bad} is not text"):
        _read(bad)


def test_a_nova_conf_gives_paths_and_ages(tmp_path: Path) -> None:
    """Nova's own file as it is, beside one of ours or alone."""
    settings = _read(_written(tmp_path, NOVA))
    assert settings.agent.instances_path == "/srv/nova/instances"
    assert settings.base == "/srv/nova/instances/_base"
    assert settings.lock_path == "/srv/nova/instances/locks"
    assert settings.agent.sources == ("instances",)
    ages = settings.cleaner.min_age_s
    assert ages[Kind.IMAGE] == ages[Kind.KERNEL] == ages[Kind.SWAP] == 100
    assert ages[Kind.EPHEMERAL] == 100
    assert ages[Kind.RESIZED] == 50
    assert ages[Kind.PARTIAL] == 86400


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("[DEFAULT]\nstate_path=/s\n", "/s/instances/_base"),
        (
            "[DEFAULT]\ninstances_path=/i\n[image_cache]\nsubdirectory_name=b\n",
            "/i/b",
        ),
        ("[DEFAULT]\ninstances_path=/i\nimage_cache_subdirectory_name=b\n", "/i/b"),
        ("[DEFAULT]\ninstances_path=/i\nbase_dir_name=b\n", "/i/b"),
        (
            "[DEFAULT]\ninstances_path=/i\n[sharedcache]\nbase=/elsewhere\n",
            "/elsewhere",
        ),
    ],
)
def test_the_base_follows_from_novas_options_in_every_spelling(
    tmp_path: Path, text: str, base: str
) -> None:
    """Unless it is set itself."""
    assert _read(_written(tmp_path, text)).base == base


@pytest.mark.parametrize(
    "text",
    [
        "[libvirt]\nremove_unused_resized_minimum_age_seconds=7\n",
        "[DEFAULT]\nremove_unused_resized_minimum_age_seconds=7\n",
        (
            "[image_cache]\nremove_unused_resized_minimum_age_seconds=7\n"
            "[libvirt]\nremove_unused_resized_minimum_age_seconds=9\n"
        ),
        (
            "[cleaner]\nmin_age_resized_s=7\n"
            "[image_cache]\nremove_unused_resized_minimum_age_seconds=9\n"
        ),
    ],
)
def test_ages_are_found_under_novas_old_names(tmp_path: Path, text: str) -> None:
    """The newest spelling that is set counts, and our own setting before all."""
    assert _read(_written(tmp_path, text)).cleaner.min_age_s[Kind.RESIZED] == 7


def test_the_locks_lie_beside_a_base_without_instances(tmp_path: Path) -> None:
    """As Nova has them when ``_base`` is below its instances."""
    assert _read(arguments=("--base", "/i/_base")).lock_path == "/i/locks"
    file = _written(tmp_path, "[sharedcache]\nlock_path=/l\nbase=/i/_base\n")
    assert _read(file).lock_path == "/l"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[cleaner]\ngrace=1\n", ("[cleaner] has no setting grace", "grace_s")),
        ("[agent]\nreport-interval-s=1\n", ("report_interval_s",)),
        ("[agents]\nnode=x\n", ("[agents]", "[agent]")),
        ("[cleaner]\ngrace_s=-1\n", ("[cleaner] grace_s = -1",)),
        ("[cleaner]\ngrace_s=soon\n", ("[cleaner] grace_s = soon",)),
        ("[cleaner]\nauto_finalize=perhaps\n", ("auto_finalize = perhaps",)),
        ("[cleaner]\nmissing_nodes=forget\n", ("hold", "last-report")),
        ("[agent]\nkernel_naming=md5\n", ("kernel_naming = md5", "sha1")),
        ("[agent]\nschema_version=two\n", ("schema_version = two",)),
        (
            "[DEFAULT]\ninstances_path=$pybasedir/x\n",
            ("instances_path", "write it out"),
        ),
        ("node=x\n", ("a.conf",)),
    ],
)
def test_what_is_wrong_is_named_in_one_line(
    tmp_path: Path, text: str, words: tuple[str, ...]
) -> None:
    """The file, the section, the key, the value, and what was meant perhaps."""
    file = _written(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        _read(file)
    message = str(caught.value)
    assert "\n" not in message
    for word in (str(file), *words):
        assert word in message


@pytest.mark.parametrize(
    "text",
    [
        "[cleaner]\nmax_share_percent=0\n",
        "[cleaner]\nmax_shrink_percent=0\n",
        "[cleaner]\nmax_shrink_floor=-1\n",
        "[cleaner]\nshrink_lasts_s=0\n",
        "[cleaner]\nrate_per_s=0.01\n",
        "[cleaner]\nlow_water_percent=100\n",
        "[cleaner]\nlow_water_grace_s=inf\n",
        "[cleaner]\nbatch=0\n",
        "[cleaner]\ngrace_s=nan\n",
        "[cleaner]\nsession_timeout_s=0\n",
        "[cleaner]\npass_interval_s=inf\n",
    ],
)
def test_a_contradiction_is_the_policys_to_refuse(tmp_path: Path, text: str) -> None:
    """Each value was of the right type; no cleaner can run with it."""
    settings = _read(_written(tmp_path, text))
    with pytest.raises(PolicyError, match=r"\[cleaner\]"):
        settings.cleaner.policy()


def test_a_missing_file_and_an_unset_base_say_what_to_do(tmp_path: Path) -> None:
    """Nothing is guessed."""
    with pytest.raises(SettingsError, match="nowhere"):
        _read(tmp_path / "nowhere")
    with pytest.raises(SettingsError, match="--base"):
        _read().require_base()
    with pytest.raises(SettingsError, match="--zookeeper"):
        _read().require_zookeeper()


@pytest.mark.parametrize(
    ("arguments", "naming"),
    [
        ((), KernelNaming.SHA1),
        (("--agent-schema-version=1",), KernelNaming.RAW_ID),
        (("--agent-schema-version=1", "--agent-kernel-naming=sha1"), KernelNaming.SHA1),
        (("--agent-kernel-naming=raw-id",), KernelNaming.RAW_ID),
    ],
)
def test_the_naming_follows_the_schema_unless_it_is_said(
    arguments: tuple[str, ...], naming: KernelNaming
) -> None:
    """A node of the old release writes raw ids."""
    settings = _read(arguments=arguments, section="agent")
    assert settings.agent.kernel_naming is naming


def test_a_wrong_option_ends_with_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """Status 2, as for every wrong usage; oslo.config itself would say 1."""
    for option in ("--agent-report-interval-s=x", "--agent-nose=x", "--config-f=x"):
        with pytest.raises((SystemExit, SettingsError)) as caught:
            _read(arguments=(option,), section="agent")
        if isinstance(caught.value, SystemExit):
            assert caught.value.code == 2
    assert "report" in capsys.readouterr().err


def test_sources_default_to_what_is_set_and_none_is_refused(tmp_path: Path) -> None:
    """An agent without a source would report that nothing is in use."""
    uses = tmp_path / "uses.json"
    settings = _read(arguments=("--agent-uses-file", str(uses)), section="agent")
    assert settings.agent.sources == ("uses-file",)
    assert [source.name for source in build_sources(settings)] == ["uses-file"]
    with pytest.raises(SettingsError, match="nothing is in use"):
        build_sources(_read())
    unknown = _read(arguments=("--agent-sources=uses-file,nope",), section="agent")
    with pytest.raises(SettingsError, match="uses-file needs"):
        build_sources(_read(arguments=("--agent-sources=uses-file",), section="agent"))
    with pytest.raises(SettingsError, match="no source nope; known are instances"):
        build_sources(unknown)


def test_a_nova_conf_is_not_ours_to_log_by(tmp_path: Path) -> None:
    """Only a file with a section of ours says how to log."""
    assert not is_ours(str(_written(tmp_path, NOVA)))
    assert is_ours(str(_written(tmp_path, NOVA + "[agent]\n")))


def test_sources_that_are_named(tmp_path: Path) -> None:
    """Each source of ours is built from settings; none is asked by that."""
    base = tmp_path / "_base"
    named = ("instances", "libvirt", "proc")
    settings = _read(
        arguments=(
            f"--base={base}",
            f"--agent-sources={','.join(named)}",
            f"--agent-instances-path={tmp_path}",
            "--agent-libvirt-uri=test:///default",
        ),
        section="agent",
    )
    assert settings.agent.libvirt_uri == "test:///default"
    assert tuple(source.name for source in build_sources(settings)) == named
    assert _read(section="agent").agent.libvirt_uri == "qemu:///system"
