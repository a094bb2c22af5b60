"""Where the live page may listen, who may see it, and whom it turns away."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.errors import InputError
from edge.live.address import Address, parse_address
from edge.live.token import VARIABLE, Token, required_token

SECRET = "0123456789abcdef"


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("8080", "127.0.0.1", 8080),
        ("0", "127.0.0.1", 0),
        ("0.0.0.0:80", "0.0.0.0", 80),
        ("camera.local:9000", "camera.local", 9000),
        ("[::1]:8080", "::1", 8080),
    ],
)
def test_an_address_is_a_port_with_or_without_a_host(text: str, host: str, port: int) -> None:
    assert parse_address(text) == Address(host, port)


@pytest.mark.parametrize("text", ["", "http://x:1", "65536", "::1:80", "[127.0.0.1]:x", "[fe80::g]:80", "a:b", "-1"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--serve"):
        parse_address(text)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *(("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("LOCALHOST", True)),
        *(("0.0.0.0", False), ("::", False), ("192.168.1.4", False), ("localhost.example.org", False)),
    ],
)
def test_only_loopback_needs_no_token(host: str, loopback: bool) -> None:
    address = Address(host, 8080)
    assert address.loopback is loopback
    if loopback:
        assert required_token(address, None, {}) is None
    else:
        with pytest.raises(InputError, match="--serve-token-file"):
            required_token(address, None, {})
    token = required_token(address, None, {VARIABLE: SECRET})
    assert token is not None
    assert token.is_(SECRET)


def test_a_token_comes_from_a_file_before_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(SECRET * 2 + "\n")
    token = required_token(Address("127.0.0.1", 1), file, {VARIABLE: SECRET})
    assert token is not None
    assert token.is_(SECRET * 2)
    assert not token.is_(SECRET)
    assert SECRET not in repr(token)


@pytest.mark.parametrize("text", ["", "short", "fifteen letters", "sixteen letters and blanks", "paßwörter-sind-lang"])
def test_a_weak_token_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(text)
    with pytest.raises(InputError, match="16 or more"):
        Token.read(file)


def test_a_token_that_cannot_be_read_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        Token.read(tmp_path / "none")


def test_a_cookie_is_of_its_token_and_does_not_hold_it() -> None:
    token, other = Token.of(SECRET, "a"), Token.of(SECRET[::-1], "b")
    assert token.made(token.cookie)
    assert not other.made(token.cookie)
    assert not token.made("")
    assert not token.made("é")
    assert SECRET not in token.cookie
