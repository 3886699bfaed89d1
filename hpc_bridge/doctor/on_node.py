"""Questions that a node's Python answers; a copy of this file runs there.

Standard library only, and nothing newer than Python 3.7: an interpreter that is too old, or that
lacks this package, is just what is to be found out.

    python on_node.py FOLDER python     versions of Python and of the packages a job needs
    python on_node.py FOLDER server     the Prefect server, with what a job's "env" file holds
"""

from __future__ import annotations

import base64
import http.client
import importlib
import json
import os
import platform
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

TIMEOUT_SECONDS = 10.0
_MOST_BYTES = 65536


def ask_server(
    url: str,
    environment: Mapping[str, str],
    timeout: float = TIMEOUT_SECONDS,
    context: ssl.SSLContext | None = None,
) -> dict[str, Any]:
    """The server's version, or the ``problem`` in one word, with the other side's own ``words``.

    ``environment`` holds credentials as a job's "env" file does.
    """
    answer: dict[str, Any] = {"url": url, "problem": "", "status": None, "version": "", "words": ""}
    try:
        request = urllib.request.Request(  # noqa: S310  the address has been checked
            url.rstrip("/") + "/admin/version", headers=credentials(environment)
        )
        with urllib.request.urlopen(request, timeout=timeout, context=context) as response:  # noqa: S310  as above
            answer["status"] = response.status
            version = json.loads(response.read(_MOST_BYTES).decode())
        if not isinstance(version, str):
            raise ValueError(f"answered {version!r}")
        answer["version"] = version
    except urllib.error.HTTPError as error:
        answer["status"] = error.code
        answer["words"] = error.read(300).decode(errors="replace")
        answer["problem"] = "credentials" if error.code in (401, 403) else "status"
        error.close()
    except ValueError as error:  # not JSON, or other JSON
        answer.update(problem="not-prefect", words=str(error))
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        answer.update(problem=_problem(reason), words=str(reason) or type(reason).__name__)
    return answer


def _problem(reason: object) -> str:
    kinds: tuple[tuple[str, Any], ...] = (
        ("unknown-host", socket.gaierror),
        ("certificate", ssl.SSLError),
        ("timeout", (socket.timeout, TimeoutError)),
        ("refused", ConnectionRefusedError),
        ("not-prefect", http.client.HTTPException),
    )
    for word, kind in kinds:
        if isinstance(reason, kind):
            return word
    return "unreachable"


def credentials(environment: Mapping[str, str]) -> dict[str, str]:
    """Headers that Prefect's client sends for these variables."""
    headers = {"Accept": "application/json"}
    if "PREFECT_API_KEY" in environment:
        headers["Authorization"] = "Bearer " + environment["PREFECT_API_KEY"]
    elif "PREFECT_API_AUTH_STRING" in environment:
        encoded = base64.b64encode(environment["PREFECT_API_AUTH_STRING"].encode())
        headers["Authorization"] = "Basic " + encoded.decode()
    headers.update(json.loads(environment.get("PREFECT_CLIENT_CUSTOM_HEADERS", "{}")))
    return headers


def describe_python() -> dict[str, Any]:
    """This interpreter and the packages that a job needs; an empty version is one that is not
    there, or does not import: ``errors`` has why."""
    found: dict[str, Any] = {
        "executable": sys.executable,
        "version": platform.python_version(),
        "packages": {},
        "errors": {},
    }
    started = time.monotonic()
    for name in ("hpc_bridge", "prefect", "cloudpickle"):
        try:
            module = importlib.import_module(name)
            found["packages"][name] = str(getattr(module, "__version__", "?"))
        except Exception as error:  # noqa: BLE001  a broken package may raise anything
            found["packages"][name] = ""
            found["errors"][name] = f"{type(error).__name__}: {error}"
    found["import_seconds"] = round(time.monotonic() - started, 2)
    return found


def _environment(folder: str) -> dict[str, str]:
    with open(os.path.join(folder, "env"), "rb") as file:  # noqa: PTH118, PTH123  no slow import
        pairs = [pair.partition("=") for pair in file.read().decode().split("\0") if pair]
    return {name: value for name, _, value in pairs}


def main() -> None:
    """Answer one question on standard output."""
    folder, question = sys.argv[1:]
    if question == "python":
        answer = describe_python()
    else:
        environment = _environment(folder)
        answer = ask_server(environment["PREFECT_API_URL"], environment)
    print(json.dumps(answer))  # noqa: T201  its output is its answer


if __name__ == "__main__":
    main()
