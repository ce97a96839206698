"""The compose file says what the software understands.

No container engine is needed: every command, option, variable and path in it is
held against the real command line, the Dockerfile and the name grammar.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from oslo_config import cfg

from sharedcache.adapters import settings as ini
from sharedcache.cli.main import cli
from sharedcache.core.names import Kind, classify, digest_of

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = {name: s for name, s in SERVICES.items() if s["image"] == "sharedcache"}
HEAD = TEXT.partition("\nx-")[0]


def interpolated(word: str, **environment: str) -> str:
    """Put variables in as Compose does: ``${NAME:-default}``, ``$$`` for ``$``."""
    filled = re.sub(
        r"(?<!\$)\$\{(\w+):-([^}]*)\}",
        lambda found: environment.get(found[1]) or found[2],
        word,
    )
    assert not re.search(r"(?<!\$)\$(?!\$)[\w{]", filled.replace("$$", "")), filled
    return filled.replace("$$", "$")


def words_of(service: str, **environment: str) -> list[str]:
    """Return a service's command as its process gets it."""
    return [interpolated(word, **environment) for word in SERVICES[service]["command"]]


def understood(words: list[str]) -> bool:
    """Whether the real command line knows a command with these options.

    Help is asked for behind them, so nothing is run; what is unknown is found
    first.
    """
    assert words[0] == "sharedcache"
    return CliRunner().invoke(cli, [*words[1:], "--help"]).exit_code == 0


def test_the_cast_is_what_the_head_says() -> None:
    """Three servers, two cleaners, three agents, and one volume for all of ours."""
    commands = {name: words_of(name)[0] for name in OURS}
    assert sum(s["image"].startswith("zookeeper:") for s in SERVICES.values()) == 3
    assert sum(c == "sharedcache-cleaner" for c in commands.values()) == 2
    assert sum(c == "sharedcache-agent" for c in commands.values()) == 3
    assert {tuple(s["volumes"]) for s in OURS.values()} == {("cache:/cache",)}
    assert set(COMPOSE["volumes"]) == {"cache"}


@pytest.mark.parametrize("service", sorted(OURS))
def test_every_command_is_understood(service: str) -> None:
    """Commands and options are those of the real parsers; a wrong one fails."""
    words = words_of(service)
    if words[0] == "sh":
        assert words[1] == "-ec"
        return
    if words[0] == "sharedcache":
        assert understood(words)
        return
    section = words[0].removeprefix("sharedcache-")
    where = {k: str(v) for k, v in SERVICES[service]["environment"].items()}
    read = ini.read(ini.parser(section), words[1:], where)
    assert read.cluster == "compose"
    assert read.base == "/cache/_base"


def test_an_option_that_is_none_is_found() -> None:
    """What the test above relies on: the parsers refuse what they do not know."""
    with pytest.raises((SystemExit, cfg.Error, ini.SettingsError)):
        ini.read(ini.parser("agent"), ["--agent-nodes=x"], {})
    assert understood(["sharedcache", "init", "--schema", "1"])
    assert not understood(["sharedcache", "init", "--scheme", "1"])
    assert not understood(["sharedcache", "rollout", "finalise"])


def test_the_head_is_a_rollout_in_five_commands() -> None:
    """Each names services that are there and commands that are understood."""
    lines = re.findall(r"^#   (.*docker compose .*)$", HEAD, re.MULTILINE)
    assert len(lines) == 5
    for line in lines:
        words = [w for w in shlex.split(line) if "=" not in w or w.startswith("-")]
        assert words[:2] == ["docker", "compose"]
        if words[2] == "run":
            assert words[3:5] == ["--rm", "ask"]
            assert understood(words[5:])
        else:
            assert words[2] == "up"
            assert set(words[3:]) <= {"--build", "--detach", *SERVICES}
    variables = set(re.findall(r"\b(\w+)=\S+ docker", HEAD))
    assert variables == set(re.findall(r"\$\{(\w+):-", TEXT))
    assert "--agent-schema_version=2" in words_of("node-3", NODE_3_SCHEMA="2")


def test_every_reference_is_to_something_that_is_there() -> None:
    """Dependencies, configs, ZooKeeper's servers and the environment's variables."""
    for service in SERVICES.values():
        assert set(service.get("depends_on", ())) <= set(SERVICES)
        for config in service.get("configs", ()):
            assert config["source"] in COMPOSE["configs"]
    for service in OURS.values():
        where = service["environment"]
        assert set(where) == {
            "SHAREDCACHE_BASE",
            "SHAREDCACHE_ZOOKEEPER",
            "SHAREDCACHE_CLUSTER",
        }
        hosts = {s.partition(":")[0] for s in where["SHAREDCACHE_ZOOKEEPER"].split(",")}
        assert hosts == {n for n in SERVICES if n.startswith("zookeeper-")}
    for name, service in SERVICES.items():
        if name.startswith("zookeeper-"):
            number = service["environment"]["ZOO_MY_ID"]
            servers = service["environment"]["ZOO_SERVERS"].split()
            assert f"server.{number}={name}:2888:3888;2181" in servers


def test_every_uses_file_names_what_the_filler_puts_there() -> None:
    """Of each kind one file is used and one is not; ages fit the cleaners' ages."""
    script = words_of("filler")[2]
    uuid = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    names = set(re.findall(f"[0-9a-f]{{40}}|{uuid}", script))
    kinds = sorted(classify(name).name for name in names)
    assert kinds == [Kind.IMAGE.name] * 2 + [Kind.KERNEL.name] * 2
    used: set[str] = set()
    for service in OURS.values():
        for config in service.get("configs", ()):
            uses = json.loads(COMPOSE["configs"][config["source"]]["content"])
            used |= {digest_of(image).hex() for image in uses.get("images", [])}
            used |= set(uses.get("kernels", []))
            path = next(w for w in service["command"] if "uses_file" in w)
            assert path.partition("=")[2] == config["target"]
    assert len(used) == 2
    assert used < names
    assert "2 days ago" in script
    assert "--cleaner-min_age_image_s=60" in words_of("cleaner-1")


def test_the_image_is_small_and_not_roots() -> None:
    """It runs as a user, who owns the volume; only what is built from is sent."""
    assert re.search(r"^USER sharedcache$", DOCKERFILE, re.MULTILINE)
    assert DOCKERFILE.rindex("USER") < DOCKERFILE.rindex("CMD")
    assert "chown -R sharedcache:sharedcache /cache" in DOCKERFILE
    assert all(
        "slim" in line for line in re.findall(r"^FROM (.*)$", DOCKERFILE, re.MULTILINE)
    )
    sent = set(
        re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    )
    taken = {
        word
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
        for word in line.split()[:-1]
    }
    assert taken == sent
    assert all((ROOT / path).exists() for path in taken)
