"""Work pools, deployments and what the server's form knows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.deployments import run_deployment
from prefect.deployments.runner import DeploymentApplyError

from hpc_bridge import slurm
from hpc_bridge.decorators import BatchFlow
from hpc_bridge.workers import SlurmWorker
from tests.waiting import HUNG

pytestmark = pytest.mark.usefixtures("server")


@slurm(walltime="5m")
@flow
def echo(x: Any) -> Any:
    return x


def pool(name: str) -> Any:
    with get_client(sync_client=True) as client:
        return client.read_work_pool(name)


def test_a_pool_is_made_on_first_use_with_storage_and_this_accounts_defaults() -> None:
    assert slurm(work_pool="made-on-first-use")(echo)(3) == 3
    made = pool("made-on-first-use")
    defaults = made.base_job_template["variables"]["properties"]
    assert made.type == "slurm"
    assert defaults["scheduler"]["default"] == "local"
    assert defaults["shared_dir"]["default"] == os.environ["HPC_BRIDGE_SHARED_DIR"]
    storage = made.storage_configuration
    assert storage.bundle_execution_step == {"hpc_bridge.node.execute": {"launcher": ["python"]}}
    assert storage.default_result_storage_block_id is not None


def test_a_pool_without_storage_is_completed_and_keeps_its_template() -> None:
    template = SlurmWorker.get_default_base_job_template()
    template["variables"]["properties"]["comment"]["default"] = "from the pool"
    template["variables"]["properties"]["scheduler"]["default"] = "local"
    with get_client(sync_client=True) as client:
        client.create_work_pool(
            WorkPoolCreate(name="bare", type="slurm", base_job_template=template), overwrite=True
        )
    future = slurm(work_pool="bare")(echo).submit(4)
    assert future.result(timeout=HUNG) == 4
    assert '--comment="from the pool"' in (future.run_directory.path / "job.sh").read_text()
    assert pool("bare").storage_configuration.default_result_storage_block_id is not None


def test_every_field_of_the_form_has_a_title_and_a_description() -> None:
    fields = SlurmWorker.get_default_base_job_template()["variables"]["properties"]
    assert [name for name, field in fields.items() if not field.get("title")] == []
    assert [name for name, field in fields.items() if not field.get("description")] == []


def test_an_own_template_of_the_pool_is_used(tmp_path: Path) -> None:
    packaged = (Path(__file__).parents[2] / "job_scripts" / "slurm.sh.j2").read_text()
    own = tmp_path / "own.sh.j2"
    own.write_text(packaged.replace("{% include", "echo from my own template\n{% include"))
    future = echo.with_options(job_variables={"template": str(own)}).submit(5)
    assert future.result(timeout=HUNG) == 5
    assert "from my own template" in future.run_directory.output_tail(100)


def test_setup_lines_run_before_python() -> None:
    @slurm(walltime="5m", setup="export FROM_SETUP=yes\necho set up")
    @flow
    def variable() -> str | None:
        return os.environ.get("FROM_SETUP")

    assert variable() == "yes"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "flows.py").write_text(
        "from prefect import flow\n"
        "from hpc_bridge import slurm\n\n\n"
        '@slurm(walltime="7m", env={"A": "1", "B": "1"})\n'
        "@flow\n"
        "def deployed(x: int = 1) -> list:\n"
        "    import os\n"
        '    return [x, os.environ["A"], os.environ["B"]]\n'
    )
    return tmp_path


def outcome(name: str, **parameters: Any) -> tuple[Any, str]:
    """Result of a deployment's run, and its job script."""
    run = run_deployment(name, parameters=parameters, timeout=HUNG)
    assert run.state.is_completed(), run.state
    submission = run.infrastructure_pid.split(":")[2]
    script = Path(os.environ["HPC_BRIDGE_SHARED_DIR"]) / "runs" / submission / "job.sh"
    return run.state.result(), script.read_text()


@pytest.mark.usefixtures("worker_pool")
def test_a_deployment_of_a_local_folder_keeps_the_decorators_variables(project: Path) -> None:
    loaded = flow.from_source(source=str(project), entrypoint="flows.py:deployed")
    assert isinstance(loaded, BatchFlow)
    loaded.deploy("folder", job_variables={"env": {"B": "2"}}, print_next_steps=False)
    result, script = outcome("deployed/folder", x=5)
    assert result == [5, "1", "2"]
    assert "#SBATCH --time=00:07:00" in script


def test_a_deployment_from_git_runs(project: Path, worker_pool: str) -> None:
    from prefect.runner.storage import GitRepository

    for command in (
        ["init", "--quiet", "--initial-branch=main"],
        ["add", "."],
        ["-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "--quiet", "-m", "flows"],
    ):
        subprocess.run(["git", "-C", str(project), *command], check=True)
    loaded: Any = flow.from_source(
        source=GitRepository(url=f"file://{project}", branch="main"),
        entrypoint="flows.py:deployed",
    )
    loaded.deploy("git", print_next_steps=False)
    assert outcome("deployed/git", x=6)[0] == [6, "1", "1"]


def test_prefect_deploy_keeps_the_decorators_variables(project: Path, worker_pool: str) -> None:
    (project / "prefect.yaml").write_text(
        "deployments:\n"
        "- name: yaml\n"
        "  entrypoint: flows.py:deployed\n"
        f"  work_pool: {{name: {worker_pool}, job_variables: {{comment: from the file}}}}\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
        timeout=HUNG,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result, script = outcome("deployed/yaml", x=7)
    assert result == [7, "1", "1"]
    assert "#SBATCH --time=00:07:00" in script
    assert '#SBATCH --comment="from the file"' in script


def test_the_server_refuses_a_deployment_with_a_wrong_value(
    project: Path, worker_pool: str
) -> None:
    loaded: Any = flow.from_source(source=str(project), entrypoint="flows.py:deployed")
    with pytest.raises(DeploymentApplyError, match="'three' is not valid"):
        loaded.deploy("wrong", job_variables={"nodes": "three"}, print_next_steps=False)


def test_a_deployment_whose_code_is_broken_says_so(project: Path, worker_pool: str) -> None:
    loaded: Any = flow.from_source(source=str(project), entrypoint="flows.py:deployed")
    loaded.deploy("broken", print_next_steps=False)
    (project / "flows.py").write_text("raise RuntimeError('half edited')\n")
    run = run_deployment("deployed/broken", timeout=HUNG)
    assert run.state.name == "FlowNotLoaded"
    assert "half edited" in run.state.message
