"""The doctor's questions to a server, and what it makes of the answers."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import prefect
import pytest

from hpc_bridge.doctor import server as module
from hpc_bridge.doctor.findings import Status
from hpc_bridge.doctor.on_node import ask_server
from hpc_bridge.doctor.server import check_server, judge, judge_version
from hpc_bridge.errors import ServerUnreachable

URL = "http://prefect.example:4200/api"


@contextmanager
def answering(status: int, body: bytes) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A server that says the same to everybody; yields its address and the headers it got."""
    got: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            got.append({"path": self.path, **dict(self.headers)})
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing: tests are quiet."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/api", got
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "body", "problem"),
    [
        (200, b'"3.8.8"', ""),
        (401, b'{"exception_message": "Unauthorized"}', "credentials"),
        (403, b"", "credentials"),
        (404, b'{"detail": "Not Found"}', "status"),
        (502, b"bad gateway", "status"),
        (200, b"<!doctype html><html></html>", "not-prefect"),
        (200, b'{"version": 3}', "not-prefect"),
        (200, b"\xff\xfe", "not-prefect"),
    ],
)
def test_an_answer_is_told_from_another(status: int, body: bytes, problem: str) -> None:
    with answering(status, body) as (url, _):
        answer = ask_server(url, {})
    assert answer["problem"] == problem
    assert answer["version"] == ("" if problem else "3.8.8")


def test_no_answer_is_told_from_another() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        assert ask_server(f"http://127.0.0.1:{port}/api", {})["problem"] == "refused"
        nobody.listen()
        silent = ask_server(f"http://127.0.0.1:{port}/api", {}, timeout=0.2)
        assert silent["problem"] == "timeout"
    assert ask_server("http://no-such-host.invalid/api", {})["problem"] == "unknown-host"


@pytest.mark.parametrize(
    ("environment", "header"),
    [
        ({}, None),
        ({"PREFECT_API_KEY": "k"}, "Bearer k"),
        ({"PREFECT_API_AUTH_STRING": "admin:pass"}, "Basic YWRtaW46cGFzcw=="),
        ({"PREFECT_API_KEY": "k", "PREFECT_API_AUTH_STRING": "a:b"}, "Bearer k"),
        ({"PREFECT_CLIENT_CUSTOM_HEADERS": json.dumps({"Authorization": "own"})}, "own"),
    ],
)
def test_the_credentials_are_sent_as_prefect_sends_them(
    environment: dict[str, str], header: str | None
) -> None:
    with answering(200, b'"3.8.8"') as (url, got):
        ask_server(url, environment)
    assert got[0]["path"] == "/api/admin/version"
    assert got[0].get("Authorization") == header


KEY = {"PREFECT_API_KEY": "k"}
AUTH = {"PREFECT_API_AUTH_STRING": "a:b"}


@pytest.mark.parametrize(
    ("problem", "url", "environment", "message", "advice"),
    [
        ("credentials", URL, {}, "none are set", "export PREFECT_API_AUTH_STRING="),
        ("credentials", URL, AUTH, "does not accept", "export PREFECT_API_AUTH_STRING="),
        ("credentials", URL, KEY, "does not accept", "export PREFECT_API_KEY="),
        ("refused", URL, {}, "refused", "prefect server start --host 0.0.0.0"),
        ("unknown-host", URL, {}, "'prefect.example'", "PREFECT_API_URL"),
        ("timeout", URL, {}, "in time", "port 4200"),
        ("timeout", "https://p.example/api", {}, "in time", "port 443"),
        ("certificate", URL, {}, "certificate", "PREFECT_API_SSL_CERT_FILE"),
        ("unreachable", URL, {}, "no route", "PREFECT_API_URL"),
        ("not-prefect", URL, {}, "web page", "ends in /api"),
        (
            *("not-prefect", "http://p.example:4200", {}, "web page"),
            "export PREFECT_API_URL=http://p.example:4200/api",
        ),
        ("status", URL, {}, "HTTP 404", "ends in /api"),
    ],
)
def test_each_problem_has_its_own_advice(
    problem: str, url: str, environment: dict[str, str], message: str, advice: str
) -> None:
    status = {"status": 404, "not-prefect": 200, "credentials": 401}.get(problem)
    answer = {"url": url, "problem": problem, "status": status, "version": "", "words": "no route"}
    verdict = judge(answer, environment)
    assert verdict.status is Status.RED
    assert message in verdict.message
    assert advice in verdict.advice
    assert "a:b" not in verdict.message + verdict.advice


@pytest.mark.parametrize(
    ("theirs", "status"),
    [
        ("3.8.8", Status.GREEN),
        ("3.8.20", Status.GREEN),
        ("3.9.0", Status.YELLOW),
        ("3.10.0", Status.YELLOW),
        ("3.7.9", Status.RED),
        ("2.20.1", Status.RED),
        ("4.0.0", Status.RED),
    ],
)
def test_a_server_may_be_newer_but_not_older(theirs: str, status: Status) -> None:
    assert judge_version(theirs, "3.8.8", URL).status is status


@pytest.mark.parametrize("url", ["", "nonsense", "ftp://server/api", "http:///api"])
def test_an_address_that_is_none_is_told_at_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with prefect.settings.temporary_settings({prefect.settings.PREFECT_API_URL: url or None}):
        verdict = check_server()
    assert verdict.status is Status.RED
    assert "export PREFECT_API_URL=http" in verdict.advice


@pytest.fixture
def writing(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """What the server answers to each try to write; None is no answer, 201 a good one."""
    answers: list[int | None] = []

    def make_and_remove(_: str) -> None:
        answer = answers.pop(0)
        if answer is None:
            raise ServerUnreachable("no answer")
        response = httpx.Response(answer, request=httpx.Request("POST", URL))
        response.raise_for_status()

    monkeypatch.setattr(module, "_make_and_remove", make_and_remove)
    monkeypatch.setattr(module, "_PAUSES", (0.0, 0.0, 0.0))
    return answers


@pytest.mark.parametrize(
    ("answers", "status", "words"),
    [
        ([201], Status.GREEN, "you may write"),
        ([503, None, 201], Status.GREEN, "you may write"),
        ([503, 503, 503], Status.RED, "503"),
        ([None, None, None], Status.RED, "no answer"),
        ([403], Status.RED, "may not write there (403)"),
    ],
)
def test_a_busy_server_is_asked_again_and_a_no_is_not(
    answers: list[int | None], status: Status, words: str, writing: list[int | None]
) -> None:
    writing += answers
    verdict = module._check_writing()
    assert (verdict.status, writing) == (status, [])
    assert words in verdict.message


def test_a_file_that_runs_on_any_python_has_no_newer_words() -> None:
    import ast
    from pathlib import Path

    from hpc_bridge.doctor import on_node

    ast.parse(Path(on_node.__file__).read_text(), feature_version=(3, 7))
