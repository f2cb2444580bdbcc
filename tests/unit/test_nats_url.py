"""What NATS_URL may say."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.config.nats_url import Address, BadUrl, addresses


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("nats://h", Address("nats", "h", 4222)),
        ("NATS://h:1/", Address("nats", "h", 1)),
        ("tls://u:p@h.example:65535", Address("tls", "h.example", 65535, "u", "p")),
        ("nats://tok%2Fen@h", Address("nats", "h", 4222, token="tok/en")),
        ("nats://u%40x:p%3A%25%2C@h", Address("nats", "h", 4222, "u@x", "p:%,")),
        ("nats://u:p@ss:word@h", Address("nats", "h", 4222, "u", "p@ss:word")),
        ("nats://[::1]", Address("nats", "::1", 4222)),
        ("tls://u:p@[2001:db8::1]:4333", Address("tls", "2001:db8::1", 4333, "u", "p")),
        ("nats://müller.example:4222", Address("nats", "müller.example", 4222)),
    ],
)
def test_a_url_is_read_as_it_was_meant(url: str, wanted: Address) -> None:
    """Breaks: somebody's server cannot be named."""
    assert addresses(url) == (wanted,)
    assert addresses(wanted.shown) == (Address(wanted.scheme, wanted.host, wanted.port),)


def test_several_are_read_with_their_own_credentials() -> None:
    """Breaks: a cluster is named by one of its servers only."""
    assert addresses("nats://a:b@one, tls://two:1") == (
        Address("nats", "one", 4222, "a", "b"),
        Address("tls", "two", 1),
    )


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "empty"),
        ("nats://a,", "comma"),
        ("h:4222", "begin with nats://"),
        ("ws://h", "ws:// is not supported"),
        ("wss://u:SECRET@h:1", "wss:// is not supported"),
        ("http://h", "http:// is not known"),
        ("nats://", "no host"),
        ("nats://u:SECRET@:4222", "no host"),
        ("nats://h:0", "port"),
        ("nats://h:70000", "port"),
        ("nats://h:", "port"),
        ("nats://u:SECRET", "port"),
        ("nats://h/path", "follows"),
        ("nats://h?tls=1", "follows"),
        ("nats://u:SEC/RET@h", "%2F"),
        ("nats://u:SEC#RET@h", "%23"),
        ("nats://u:SEC%RET@h", "%25"),
        ("nats://u:%ff@h", "UTF-8"),
        ("nats://u:@h", "incomplete"),
        ("nats://:SECRET@h", "incomplete"),
        ("nats://@h", "incomplete"),
        ("nats://h h", "blank"),
        ("nats://h\nx", "blank"),
        ("nats://[::1", "follows"),
        ("nats://::1", ""),
    ],
)
def test_what_cannot_be_meant_is_refused_without_its_secret(url: str, why: str) -> None:
    """Breaks: a mistyped URL leads elsewhere; or a log shows the password that was in it."""
    with pytest.raises(BadUrl) as error:
        addresses(url)
    assert why in str(error.value)
    assert not any(part in str(error.value) for part in ("SECRET", "SEC", "RET"))


@given(st.text(min_size=1), st.text(min_size=1))
def test_any_credentials_can_be_written(user: str, password: str) -> None:
    """Breaks: a password that a generator made cannot be used."""
    try:
        who = f"{quote(user, safe='')}:{quote(password, safe='')}"
    except UnicodeEncodeError:  # half a surrogate pair is no text
        return
    assert addresses(f"nats://{who}@h") == (Address("nats", "h", 4222, user, password),)
