"""The Prefect server that demo, drill and tests start for themselves."""

from __future__ import annotations

import json
import urllib.request

from tests.conftest import PORT


def test_its_dashboard_finds_the_server_whatever_its_port_and_from_wherever(server: str) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/ui-settings", timeout=10) as answer:
        assert json.load(answer)["api_url"] == "/api"
