"""URLs: what they mean, and that no secret comes out of them again."""

from __future__ import annotations

import pytest

from telpher.url import parse_url


def test_a_full_url():
    address = parse_url("telpher://app:s%40crt@mq1,mq2:7500,[::1]:7600?tls=verify&ca=/ca.pem")
    assert address.hosts == (("mq1", 7400), ("mq2", 7500), ("::1", 7600))
    assert (address.user, address.secret) == ("app", "s@crt")
    assert (address.tls, address.ca) == ("verify", "/ca.pem")
    assert str(address) == "telpher://mq1:7400,mq2:7500,[::1]:7600"


def test_a_unix_socket():
    address = parse_url("telpher+unix:///run/telpher.sock")
    assert address.path == "/run/telpher.sock"
    assert str(address) == "telpher+unix:///run/telpher.sock"


def test_the_environment_and_the_default(monkeypatch):
    monkeypatch.setenv("TELPHER_URL", "telpher://elsewhere")
    assert parse_url().hosts == (("elsewhere", 7400),)
    assert parse_url("telpher://here").hosts == (("here", 7400),)
    assert parse_url("telpher://h\xe9").hosts == (("h\xe9", 7400),)
    monkeypatch.delenv("TELPHER_URL")
    assert parse_url().hosts == (("127.0.0.1", 7400),)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("amqp://app:hunter2@host", "telpher:// or telpher"),
        ("", "is empty"),
        ("telpher://app:hunter2@h\udcff", "no name has it"),
        ("telpher://app:hunter2@h\u2028st:7400", "no name has it"),
        ("telpher://app:hunter2@host:0", "1 to 65535"),
        ("telpher://app:hunter2@host:99999", "1 to 65535"),
        ("telpher://app:hunter2@host:x", "1 to 65535"),
        ("telpher://app:hunter2@", "host, host:port"),
        ("telpher://app:hunter2@a,,b", "host, host:port"),
        ("telpher://app:hunter2@[::1]x", "cannot be parsed|host, host:port"),
        ("telpher://app:hunter2@host/path", "no path"),
        ("telpher://app:hunter2@host?tls=maybe", "off, verify, insecure"),
        ("telpher://app:hunter2@host?color=red", "no parameter 'color'"),
        ("telpher://app:hunter2@[host", "cannot be parsed"),
        ("telpher+unix://app:hunter2@host/path", "absolute path"),
        ("telpher+unix:relative", "absolute path"),
        ("telpher+unix:///run/s?tls=verify", "no parameter 'tls'"),
        ("telpher://app:hunter2/x@host", "%2F"),
        ("telpher://app:hunter2?x@host", "%3F"),
        ("telpher://app:hunter2#x@host", "%23"),
    ],
)
def test_a_bad_url_is_refused_without_its_secret(url, text):
    with pytest.raises(ValueError, match=text) as caught:
        parse_url(url)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_the_secret_is_in_no_repr():
    address = parse_url("telpher://app:hunter2@host")
    assert "hunter2" not in repr(address) + str(address)
