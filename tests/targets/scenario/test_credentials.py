"""Where the Scenario target sends its credentials, and that nobody else ever sees them."""

from __future__ import annotations

import base64
import logging
import socket
import ssl
import threading
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.model_types import COMPOSITION
from support.sizes import size
from support.wire_server import Clock, Reply, WireServer, listed, raw

from composer.errors import ComposeError, CredentialsError, TargetError, Unreachable, UsageError
from composer.model import Concept
from composer.targets.http.address import address
from composer.targets.scenario.credentials import Credentials
from composer.targets.scenario.service import Scenario

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY, SECRET = "api_qX7pLw", "sEcReT-99-value"
AUTH = Credentials.basic(KEY, SECRET)
PAIR = base64.b64encode(f"{KEY}:{SECRET}".encode()).decode()
NEVER_SEEN = (KEY, SECRET, PAIR, *(base64.b64encode(x.encode()).decode() for x in (KEY, SECRET)))


@pytest.fixture
def server() -> Iterator[WireServer]:
    with WireServer() as wire:
        yield wire


def opened(url: str, *, patience: float = 300.0) -> Scenario:
    return Scenario(url, auth=AUTH, options=replace(Clock().options, patience=patience))


# --- addresses -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("https://API.Cloud.Scenario.com/v1", "https://api.cloud.scenario.com/v1"),
        ("HTTPS://api.cloud.scenario.com:443/v1///", "https://api.cloud.scenario.com/v1"),
        ("https://h.example:8443", "https://h.example:8443"),
        ("https://h.example:0443/", "https://h.example"),
        ("http://localhost:80/v1", "http://localhost/v1"),
        ("http://LOCALHOST:8321/v1/", "http://localhost:8321/v1"),
        ("http://127.0.0.1:8321/v1", "http://127.0.0.1:8321/v1"),
        ("http://127.9.9.9/v1", "http://127.9.9.9/v1"),
        ("http://[::1]:8321/v1", "http://[::1]:8321/v1"),
        ("http://[0:0::0001]/v1", "http://[::1]/v1"),
        ("https://[2001:DB8::1]/v1", "https://[2001:db8::1]/v1"),
        ("https://h.example/a/b~c.d", "https://h.example/a/b~c.d"),
    ],
)
def test_an_address_has_one_form(url: str, base: str) -> None:
    assert address(url).base == address(url).key == base
    assert address(url, "proj_1").key == f"{base}#proj_1"
    assert address(base).base == base


@pytest.mark.parametrize(
    "url",
    [
        "http://api.cloud.scenario.com/v1",
        "http://192.168.0.1/v1",
        "http://localhost.example.com/v1",
        "http://127.0.0.1.example.com/v1",
        "http://127.1/v1",
        "http://0/v1",
        "http://2130706433/v1",
        "http://0.0.0.0/v1",
        "http://[::ffff:10.0.0.1]/v1",
        "ftp://localhost/v1",
        "file:///etc/passwd",
        "//localhost/v1",
        "localhost:8321",
        "staging",
        "",
        "https://",
        "https:///v1",
        "https://h.example:port/v1",
        "https://h.example:99999/v1",
        "https://h.example/v1/../v2",
        "https://h.example/%2e%2e/v2",
        "https://h.example//v1",
        "https://h.example/v 1",
        "https://h.exa\tmple/v1",
        "https://h.example\\@evil.example/v1",
        "https://h_x.example/v1\n",
        "https://münchen.example/v1",
        "https://[::1",
        "https://[fe80::1%25eth0]/v1",
        f"https://{'x' * 64}.example",
        f"https://{'x.' * 130}example",
    ],
)
def test_what_is_no_address_or_no_safe_one_is_refused(url: str) -> None:
    with pytest.raises(UsageError) as error:
        opened(url)
    assert error.value.exit_status == 64


@pytest.mark.parametrize(
    "url",
    [
        "https://user:hunter2@h.example/v1",
        "https://hunter2@h.example/v1",
        "https://h.example/v1?token=hunter2",
        "https://h.example/v1#hunter2",
        "user:hunter2@h.example",
    ],
)
def test_an_address_with_a_secret_in_it_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(UsageError) as error:
        opened(url)
    assert "hunter2" not in str(error.value)


def test_a_project_is_an_id() -> None:
    with pytest.raises(UsageError, match="project"):
        address("https://h.example", "a/b")


@settings(max_examples=size(200, 5000), deadline=None)
@given(st.text(st.sampled_from("htps:/[]@#?%.\\ \t1x0éA-_~"), max_size=40))
def test_every_address_is_refused_or_normal(tail: str) -> None:
    for url in (tail, f"https://{tail}", f"http://localhost{tail}"):
        try:
            place = address(url)
        except UsageError:
            continue
        assert address(place.base) == place
        assert place.base.startswith("https://") or place.loopback


# --- credentials -----------------------------------------------------------------------------


def test_credentials_come_from_the_official_clients_variables() -> None:
    env = {"SCENARIO_SDK_API_KEY": KEY, "SCENARIO_SDK_API_SECRET": SECRET}
    assert Credentials.from_env(env).header == f"Basic {PAIR}"
    assert Credentials.from_env({**env, "SCENARIO_SDK_JWT": "t"}).header == f"Basic {PAIR}"
    assert Credentials.from_env({"SCENARIO_SDK_JWT": " tok.en\n"}).header == "Bearer tok.en"
    half = {"SCENARIO_SDK_API_KEY": KEY, "SCENARIO_SDK_JWT": "tok.en"}
    assert Credentials.from_env(half).header == "Bearer tok.en"


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({}, "SCENARIO_SDK_API_KEY and SCENARIO_SDK_API_SECRET not set"),
        (
            {"SCENARIO_SDK_API_KEY": KEY},
            "_KEY is set, but SCENARIO_SDK_API_SECRET is not",
        ),
        (
            {"SCENARIO_SDK_API_SECRET": SECRET},
            "_SECRET is set, but SCENARIO_SDK_API_KEY is not",
        ),
        ({"SCENARIO_SDK_JWT": f"{SECRET}\r\nX: y"}, "SCENARIO_SDK_JWT has characters"),
        ({"SCENARIO_SDK_JWT": f"{SECRET}é"}, "SCENARIO_SDK_JWT has characters"),
        ({"SCENARIO_SDK_API_KEY": f"a:{SECRET}"}, "SCENARIO_SDK_API_KEY has a colon"),
    ],
)
def test_missing_or_broken_credentials_say_what_to_set(env: dict[str, str], words: str) -> None:
    with pytest.raises(CredentialsError, match=words) as error:
        Credentials.from_env(env)
    assert error.value.exit_status == 77
    assert SECRET not in str(error.value)


def test_credentials_show_nothing() -> None:
    for shown in (
        repr(AUTH),
        str(AUTH),
        f"{AUTH}",
        repr([AUTH]),
        repr(opened("https://h.example")),
    ):
        assert not any(secret in shown for secret in NEVER_SEEN)


# --- nothing but the target gets them --------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_an_error_and_gets_no_credentials(status: int, server: WireServer) -> None:
    with WireServer() as other, opened(server.url) as target:
        place = other.url.replace("127.0.0.1", "localhost")
        other.answer = lambda seen: listed(raw("m1"))
        server.say(*[Reply(b"", status, {"Location": f"{place}/models?sig=signed"})] * 2)
        for verb in (
            target.list_models,
            lambda: target.create("Knight", [Concept("a", 0.5)], type=COMPOSITION),
        ):
            with pytest.raises(TargetError, match="redirected to localhost") as error:
                verb()
            assert "signed" not in str(error.value)
            assert not isinstance(error.value, Unreachable)
        assert other.seen == []
    assert len(server.seen) == 2


@pytest.mark.parametrize("place", ["http://[bad", "\x7f", "", "//", "http://" + "x" * 9999])
def test_a_redirect_to_nowhere_is_the_same_error(place: str, server: WireServer) -> None:
    server.say(Reply(b"", 302, {"Location": place}))
    with opened(server.url) as target, pytest.raises(TargetError, match="redirected") as error:
        target.list_models()
    assert len(error.value.message) < 300


def test_a_netrc_for_the_host_changes_nothing(
    server: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = "machine 127.0.0.1 login thief password theft\ndefault login thief password theft\n"
    netrc = Path.home() / ".netrc"
    netrc.write_text(lines, encoding="utf-8")
    netrc.chmod(0o600)
    (Path.home() / "_netrc").write_text(lines, encoding="utf-8")
    monkeypatch.setenv("NETRC", str(netrc))
    server.say(listed(), Reply(b"", 302, {"Location": "/v1/elsewhere"}))
    with opened(server.url) as target:
        target.list_models()
        with pytest.raises(TargetError):
            target.list_models()
    assert {seen.headers["Authorization"] for seen in server.seen} == {f"Basic {PAIR}"}


def test_cookies_are_not_kept(server: WireServer) -> None:
    server.say(Reply({"models": []}, headers={"Set-Cookie": "a=b"}), listed())
    with opened(server.url) as target:
        target.list_models()
        target.list_models()
    assert "Cookie" not in server.seen[1].headers


def test_a_proxy_gets_a_tunnel_and_no_credentials(
    server: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, server.url.removesuffix("/v1"))
    server.answer = lambda seen: Reply({}, 407)
    with (
        opened("https://api.example.com/v1") as target,
        pytest.raises(Unreachable, match="the proxy asks for a user and a password") as error,
    ):
        target.create("Knight", [Concept("a", 0.5)], type=COMPOSITION)
    assert "HTTPS_PROXY" in str(error.value.hint)
    assert len(server.seen) == 1  # another try would be refused, too
    assert type(error.value) is Unreachable  # nothing was sent, so nothing is in doubt
    assert {seen.method for seen in server.seen} == {"CONNECT"}
    assert not any("Authorization" in seen.headers for seen in server.seen)


@pytest.mark.parametrize("status", [403, 502])
def test_a_proxy_that_refuses_for_another_reason_is_not_asked_for_a_password(
    status: int, server: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, server.url.removesuffix("/v1"))
    server.answer = lambda seen: Reply({}, status)
    with (
        opened("https://407.example.com/407") as target,
        pytest.raises(Unreachable, match="the proxy refuses the connection") as error,
    ):
        target.list_models()
    assert error.value.hint == "check the network, and the target's address"
    assert {seen.method for seen in server.seen} == {"CONNECT"}


@pytest.mark.parametrize(
    ("certificate", "trusted", "why", "hint"),
    [
        ("unknown", False, "self-signed certificate", "set REQUESTS_CA_BUNDLE to"),
        ("expired", False, "self-signed certificate", "set REQUESTS_CA_BUNDLE to"),
        ("expired", True, "certificate has expired", "check this machine's clock"),
        ("other_host", True, "certificate is not valid for", "check the target's address"),
    ],
)
def test_a_certificate_that_is_not_trusted_gets_its_next_step(
    certificate: str, trusted: bool, why: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = CERTIFICATES / f"{certificate}.pem"
    if trusted:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(file))
    with (
        tls_server(file) as (port, handshakes),
        opened(f"https://127.0.0.1:{port}/v1") as target,
        pytest.raises(Unreachable, match=f"its certificate is not trusted: .*{why}") as error,
    ):
        target.create("Knight", [Concept("a", 0.5)], type=COMPOSITION)
    assert type(error.value) is Unreachable and hint in str(error.value.hint)
    assert len(handshakes) == 1  # another try would end as this one


CERTIFICATES = Path(__file__).parents[2] / "support" / "certificates"


@contextmanager
def tls_server(certificate: Path) -> Iterator[tuple[int, list[str]]]:
    """A port with this certificate, and how each handshake there ended."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    handshakes: list[str] = []

    def answer(listener: socket.socket) -> None:
        with suppress(OSError):  # once it is closed
            while True:
                connection, _ = listener.accept()
                try:
                    context.wrap_socket(connection, server_side=True).close()
                    handshakes.append("trusted")
                except OSError as error:
                    connection.close()
                    handshakes.append(str(error))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer, args=(listener,))
        thread.start()
        yield listener.getsockname()[1], handshakes
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def test_loopback_needs_no_proxy(server: WireServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with WireServer() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        server.say(listed())
        with opened(server.url) as target:
            target.list_models()
        assert proxy.seen == []
    assert len(server.seen) == 1


def test_a_certificate_bundle_that_is_not_there_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none.pem"))
    with pytest.raises(UsageError, match="REQUESTS_CA_BUNDLE"):
        opened("https://h.example")


# --- and none shows in what we print, log or raise -------------------------------------------


def test_no_error_and_no_log_line_at_any_level_shows_a_secret(
    server: WireServer, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    echo = f"you sent {KEY} {SECRET} Basic {PAIR}; see https://x.example/y?X-Signature=signed"
    statuses = (200, 302, 400, 401, 403, 404, 409, 418, 422, 429, 500, 503)
    bodies = ({"message": echo}, {"error": {"message": echo}}, {"details": {"actionName": echo}})
    said = []
    with caplog.at_level(logging.DEBUG), opened(server.url, patience=0.2) as target:
        for status in statuses:
            for body in (*bodies, echo.encode()):
                reply = Reply(body, status, {"Location": f"https://{PAIR}@x.example/?a={SECRET}"})
                server.answer = lambda seen, reply=reply: reply  # type: ignore[misc]
                for verb in (
                    target.list_models,
                    lambda: target.create("Knight", [Concept("a", 0.5)], type=COMPOSITION),
                    lambda: target.train("m1"),
                    lambda: target.price("m1"),
                ):
                    try:
                        said.append(repr(verb()))
                    except ComposeError as error:
                        said.append(f"{error} {error!r} {error.hint}")
    out = capfd.readouterr()
    text = "\n".join([*said, caplog.text, out.out, out.err])
    assert "/v1/models" in caplog.text  # the log was on
    for secret in (*NEVER_SEEN, "signed"):
        assert secret not in text
    assert "Authorization" not in text


def test_the_whole_chain_of_an_error_shows_no_secret(server: WireServer) -> None:
    server.say(*[Reply(drop="before")] * 5)
    with opened(server.url) as target, pytest.raises(Unreachable) as error:
        target.list_models()
    link: BaseException | None = error.value
    while link is not None:
        assert not any(secret in f"{link!r} {link}" for secret in NEVER_SEEN)
        link = link.__cause__ or link.__context__
