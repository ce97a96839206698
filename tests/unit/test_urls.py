"""ZooKeeper's address, from what an operator writes."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from sharedcache.adapters.zookeeper import urls


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("zk1", "zk1:2181"),
        ("zk1:2182", "zk1:2182"),
        (" zk1, zk2:99 ,ZK3 ", "zk1:2181,zk2:99,zk3:2181"),
        ("[fd00::1]:2182,[fd00::2]", "[fd00::1]:2182,[fd00::2]:2181"),
        ("zookeeper://a,b", "a:2181,b:2181"),
        ("zookeeper://a:1/", "a:1"),
        ("kazoo://a", "a:2181"),
        ("sharedcache-zookeeper://a", "a:2181"),
    ],
)
def test_hosts(text: str, hosts: str) -> None:
    """A bare list and a URL say the same; the port is spelled out."""
    address = urls.parse(text)
    assert str(address) == hosts
    assert address.username is None
    assert address.options == {}


def test_credentials_are_unquoted() -> None:
    """What a URL cannot hold is written with percent signs."""
    address = urls.parse("zookeeper://us%40er:p%3A%2F%40%23ss@a:1,b:2")
    assert (address.username, address.password) == ("us@er", "p:/@#ss")
    assert address.hosts == ("a:1", "b:2")


def test_no_secret_is_shown() -> None:
    """Neither str nor repr of an address shows a password."""
    address = urls.parse(
        "zookeeper://user:hunter2@a?sasl_mechanism=DIGEST-MD5&sasl_password=hunter3"
    )
    for shown in (str(address), repr(address), f"{address}"):
        assert "hunter" not in shown


@pytest.mark.parametrize(
    "text",
    [
        "zookeeper://us%40er:p%3A%2F%40%23%25ss@a:1,b:2?use_ssl=true&ca=/etc/a%20b.pem",
        "zookeeper://[::1]:5?timeout=0.5",
        "a,b",
    ],
)
def test_the_backend_url_means_the_same(text: str) -> None:
    """What is handed to tooz reads back as the same address."""
    address = urls.parse(text)
    assert urls.parse(address.url()) == address
    assert urlsplit(address.url()).scheme == urls.BACKEND


def test_options() -> None:
    """Flags take the usual words, numbers take fractions, absence the default."""
    address = urls.parse("zookeeper://a?use_ssl=Yes&verify_certs=0&timeout=2.5")
    assert address.flag("use_ssl", default=False)
    assert not address.flag("verify_certs", default=True)
    assert address.flag("randomize_hosts", default=True)
    assert address.number("timeout", 10) == 2.5
    assert urls.parse("a").number("timeout", 10) == 10


def test_sasl_options_under_kazoos_names() -> None:
    """SASL options come without their prefix; without SASL there are none."""
    address = urls.parse("zookeeper://a?sasl_mechanism=GSSAPI&sasl_service=zk")
    assert address.sasl() == {"mechanism": "GSSAPI", "service": "zk"}
    assert urls.parse("a").sasl() == {}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no host:port"),
        ("a,,b", "no host:port"),
        ("a:b", "no host:port"),
        ("a:0", "no host:port"),
        ("a:70000", "no host:port"),
        ("a b:1:2", "no host:port"),
        ("etcd3://a", "begins with zookeeper"),
        ("zookeeper://a/chroot", "not supported"),
        ("zookeeper://a#frag", "fragment"),
        ("zookeeper://user@a", "user:password@"),
        ("zookeeper://:pw@a", "user:password@"),
        ("zookeeper://user:@a", "user:password@"),
        ("zookeeper://us%3Aer:pw@a", "no colon"),
        ("zookeeper://a?use_tls=true", "use_tls is no option"),
        ("zookeeper://a?use_ssl=maybe", "true or false"),
        ("zookeeper://a?timeout=soon", "positive number"),
        ("zookeeper://a?timeout=0", "positive number"),
        ("zookeeper://a?timeout=nan", "positive number"),
        ("zookeeper://a?timeout=inf", "positive number"),
        ("zookeeper://a?use_ssl=true&ca=", "empty"),
        ("zookeeper://a?ca=/etc/ca.pem", "use_ssl is not on"),
        ("zookeeper://a?use_ssl=true&certfile=/c", "together"),
        ("zookeeper://a?use_ssl=true&keyfile=/k", "together"),
        ("zookeeper://a?verify_certs=no&check_hostname=yes", "needs verify_certs"),
        ("zookeeper://a?sasl_username=u", "need sasl_mechanism"),
    ],
)
def test_what_is_not_understood_is_refused(text: str, complaint: str) -> None:
    """A misspelt option must not quietly leave a connection unprotected."""
    with pytest.raises(ValueError, match=complaint):
        urls.parse(text)
