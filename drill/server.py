"""The few questions that the drill asks the Prefect server, without Prefect's client."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import httpx

_PAGE = 200


class Server:
    """Reached at its API address."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=60)

    def states(self, flow_runs: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The state of each flow run that there is."""
        found = {}
        for start in range(0, len(flow_runs), _PAGE):
            wanted = {"flow_runs": {"id": {"any_": list(flow_runs[start : start + _PAGE])}}}
            for run in self._ask("POST", "flow_runs/filter", wanted | {"limit": _PAGE}):
                found[run["id"]] = run["state"]
        return found

    def history(self, flow_run: str) -> list[str]:
        """Names of all its states, oldest first."""
        states = self._ask("GET", f"flow_run_states/?flow_run_id={flow_run}")
        return [state["name"] for state in sorted(states, key=lambda state: state["timestamp"])]

    def cancel(self, flow_run: str) -> None:
        """As the dashboard's button does."""
        state = {"type": "CANCELLING", "name": "Cancelling"}
        self._ask("POST", f"flow_runs/{flow_run}/set_state", {"state": state})

    def resume(self, flow_run: str) -> None:
        """Let a suspended run go on."""
        self._ask("POST", f"flow_runs/{flow_run}/resume", {})

    def _ask(self, method: str, path: str, content: Any = None) -> Any:
        for pause in (0.5, 1, 2, 4, 0):
            answer = self._client.request(method, f"/{path}", json=content)
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            time.sleep(pause)  # its SQLite is busy
        answer.raise_for_status()
        return answer.json()
