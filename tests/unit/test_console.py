"""Which lines of a job's output the flow sends to the server by itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hpc_bridge.node.console import GUTTER, is_run_log


@pytest.mark.parametrize(
    "line",
    [
        "09:12:33.123 | INFO    | Flow run 'eager-otter' - message",
        "09:12:33.123 | WARNING | Task run 'step-0af' - ",
        '09:12:33.123 | CRITICAL | Flow run "it\'s" - x',
        "\x1b[36m09:12:33.123\x1b[0m | \x1b[36mINFO   \x1b[0m | Flow run\x1b[35m 'a'\x1b[0m - x",
        f'{GUTTER}  File "x.py", line 3',
        GUTTER,
        GUTTER.rstrip(),
    ],
)
def test_what_a_run_logs_is_known(line: str) -> None:
    assert is_run_log(line)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "printed by the flow",
        "Flow run 'eager-otter' - message",
        "09:12:33.123 | INFO    | prefect.engine - message",
        "09:12:33.123 | INFO    | mylib - Flow run 'x' - y",
        " 09:12:33.123 | INFO    | Flow run 'x' - not sent",
        "slurmstepd: error: *** JOB 7 ON c1 CANCELLED AT 2026-11-21T08:00:00 ***",
        "             an indented line",
    ],
)
def test_what_anything_else_prints_is_not(line: str) -> None:
    assert not is_run_log(line)


LOGGED = """
import logging
from prefect import flow, get_run_logger
from prefect.context import FlowRunContext
from prefect.logging.handlers import APILogHandler
from prefect.logging import handlers
from hpc_bridge.node.console import mark_run_logs

handlers.set_api_log_sink(lambda log: None)
mark_run_logs()
run = {"flow_run_id": "8a3f2f5e-0000-4000-8000-000000000000", "flow_run_name": "otter"}
logger = logging.LoggerAdapter(logging.getLogger("prefect.flow_runs"), run)
logger.info("one\\ntwo\\n\\nfour")
unsent = logging.getLogger("prefect.flow_runs")
unsent.info("one\\ntwo", extra=run | {"send_to_api": False})
logging.getLogger("prefect.engine").info("one\\ntwo")
extra = logging.getLogger("mylib")
extra.addHandler(APILogHandler())
extra.warning("one\\ntwo", extra=run)
"""


def printed(**variables: str) -> list[bool]:
    done = subprocess.run(
        [sys.executable, "-c", LOGGED],
        env={"PREFECT_LOGGING_LEVEL": "INFO", "PREFECT_API_URL": "http://127.0.0.1:9/api"}
        | variables,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return [is_run_log(line) for line in done.stderr.splitlines()]


def test_each_line_that_prefect_prints_of_a_message_is_known_when_it_is_sent() -> None:
    # Four lines of a sent message, two unsent, two of the engine, two of an extra logger.
    assert printed() == [True] * 4 + [False] * 4 + [True] * 2


def test_nothing_is_left_out_when_nothing_is_sent() -> None:
    assert not any(printed(PREFECT_LOGGING_TO_API_ENABLED="false"))


@pytest.mark.parametrize(
    "variables",
    [
        {"PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT": "%(message)s"},
        {"PREFECT_LOGGING_COLORS": "false"},
        {"FORCE_COLOR": "1"},
    ],
    ids=lambda variables: next(iter(variables)),
)
def test_other_formats_and_colours_are_known_as_well(variables: dict[str, str]) -> None:
    assert printed(**variables) == [True] * 4 + [False] * 4 + [True] * 2


def test_importing_it_needs_the_standard_library_only() -> None:
    code = "import sys, hpc_bridge.node.console; sys.exit('prefect' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_where_to_look_at_a_run_is_not_for_its_own_log() -> None:
    link = "08:40:51.509 | INFO    | Flow run 'a-b' - View at http://server/runs/flow-run/1"
    assert is_run_log(f" {link}")
    assert not is_run_log(" 08:40:51.509 | INFO    | Flow run 'a-b' - look at http://server")
