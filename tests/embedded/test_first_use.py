"""What a newcomer does, and stumbles over."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.exceptions import CrashedRun
from prefect.futures import as_completed
from prefect.states import Completed

from hpc_bridge import slurm
from hpc_bridge.connections import connect
from hpc_bridge.errors import InvalidJobSpec
from hpc_bridge.jobs import JobId
from hpc_bridge.settings import load_settings
from tests.waiting import HUNG

pytestmark = pytest.mark.usefixtures("server")


@slurm
@flow
def echo(x: Any) -> Any:
    return x


def python(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """What a newcomer's script says, in an interpreter of its own."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=HUNG,
    )


class Model:
    factor = 3

    @slurm
    @flow
    def times(self, x: int) -> int:
        return self.factor * x


def test_a_method_keeps_its_object() -> None:
    assert Model().times(2) == 6


def test_the_modules_of_a_flows_package_travel_with_it(tmp_path: Path) -> None:
    package = tmp_path / "project" / "pkg"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "util.py").write_text("def helper(x):\n    return x + 1\n")
    (package / "flows.py").write_text(
        "from prefect import flow\n"
        "from hpc_bridge import slurm\n"
        "from .util import helper\n\n\n"
        "@slurm\n"
        "@flow\n"
        "def relative(x: int) -> int:\n"
        "    return helper(x)\n"
    )
    done = python("-c", "from pkg import flows; print(flows.relative(41))", folder=package.parent)
    assert done.stdout == "42\n", done.stderr


def test_included_modules_can_be_imported_by_the_flow(tmp_path: Path) -> None:
    (tmp_path / "lazy.py").write_text("VALUE = 7\n")
    (tmp_path / "main.py").write_text(
        "from prefect import flow\n"
        "from hpc_bridge import slurm\n\n\n"
        '@slurm(include_files=["lazy.py"])\n'
        "@flow\n"
        "def late() -> int:\n"
        "    import lazy\n"
        "    return lazy.VALUE\n\n\n"
        'if __name__ == "__main__":\n'
        "    print(late())\n"
    )
    done = python(str(tmp_path / "main.py"))
    assert done.stdout == "7\n", done.stderr


def test_a_generator_is_refused_at_decoration() -> None:
    with pytest.raises(InvalidJobSpec, match="'values' is a generator"):

        @slurm
        @flow
        def values() -> Any:
            yield 1


def test_decorators_in_the_wrong_order_are_named() -> None:
    with pytest.raises(InvalidJobSpec, match="write @slurm above @flow"):

        @flow
        @slurm
        def swapped() -> None: ...


def test_a_result_that_cannot_be_pickled_says_where_to_look() -> None:
    @slurm
    @flow
    def locked() -> Any:
        import threading

        return threading.Lock()

    with pytest.raises(ValueError, match="cannot be pickled: the job's output says why"):
        locked()


@pytest.mark.parametrize(
    ("setup", "words"),
    [(["false"], "a setup line failed: false"), (["exit 7"], "exit code 7")],
)
def test_a_setup_line_that_fails_ends_the_job(setup: list[str], words: str) -> None:
    state = echo.with_options(job_variables={"setup": setup})(1, return_state=True)
    assert (state.name, state.is_crashed()) == ("SetupFailed", True)
    assert words in state.message


def test_an_environment_without_hpc_bridge_is_named(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path)], check=True)
    state = echo.with_options(job_variables={"python": str(tmp_path)})(1, return_state=True)
    assert state.name == "HPCBridgeMissing"
    assert f"{tmp_path}/bin/python" in state.message
    assert "install it there" in state.message


def test_a_launcher_that_fails_shows_what_it_printed() -> None:
    bound = echo.with_options(launcher={"execution": ["nice", "--nonsense"]})
    with pytest.raises(CrashedRun, match="unrecognized option '--nonsense'"):
        bound(1)


def test_an_unusual_state_name_is_noticed_soon() -> None:
    @slurm(poll_interval=60)
    @flow
    def unusual() -> Any:
        return Completed(name="Converged", data=5)

    future = unusual.submit()
    future.wait(timeout=HUNG)
    assert future.state.name == "Converged"


def test_a_retry_has_the_first_parameters() -> None:
    import asyncio

    given = {"set": {1, 2}, "long": list(range(40_000))}
    first = echo.submit(given)
    assert first.result(timeout=HUNG) == given
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(first.flow_run_id)
    assert asyncio.run(echo.retry(run)) == given


def test_as_completed_notices_a_job_that_died_in_the_queue() -> None:
    future = echo.with_options(job_variables={"begin": "now+1hour"}).submit(1)
    threading.Timer(
        0.5,
        connect("local", load_settings().shared, 1.0).cluster.cancel,
        [[JobId(future.job_id)]],
    ).start()
    assert [done.state.is_cancelled() for done in as_completed([future], timeout=HUNG)] == [True]


def test_directives_that_would_break_the_run_are_refused() -> None:
    bound = echo.with_options(job_variables={"directives": ["--job-name=mine"]})
    with pytest.raises(InvalidJobSpec, match="decided by hpc-bridge"):
        bound(1)


def test_a_mistyped_setting_is_said(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from hpc_bridge.settings import load_settings; load_settings()"],
        env=dict(os.environ) | {"HPC_BRIDGE_SHARED_DR": "/x"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "did you mean HPC_BRIDGE_SHARED_DIR?" in done.stderr


def test_a_refusal_is_short(tmp_path: Path) -> None:
    (tmp_path / "short.py").write_text(
        "from prefect import flow\n"
        "from hpc_bridge import slurm\n\n"
        '@slurm(directives=["--no-such-option=1"])\n'
        "@flow\n"
        "def refused() -> None: ...\n\n"
        "refused()\n"
    )
    done = python(str(tmp_path / "short.py"))
    assert "no-such-option" in done.stderr.splitlines()[-1]
    assert done.stderr.count("File ") <= 4, done.stderr
