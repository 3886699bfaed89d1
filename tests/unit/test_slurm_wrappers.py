"""A site's own paths and wrappers for Slurm's commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc_bridge.cluster import Cluster
from hpc_bridge.errors import (
    CommandError,
    CommandNotFound,
    SchedulerUnavailable,
    SettingsError,
    SubmissionRefused,
)
from hpc_bridge.jobs import JobId
from hpc_bridge.schedulers.base import Answer, Commands
from hpc_bridge.schedulers.local import LocalScheduler
from hpc_bridge.schedulers.slurm import SlurmScheduler
from hpc_bridge.transports.local import LocalTransport
from tests.unit.slurm_answers import SINCE, VERSIONS, answer

SCRIPT = "#!/bin/bash\n"


def wrapper(folder: Path, text: str, *, mode: int = 0o755) -> str:
    path = folder / "wrapper"
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def cluster(**commands: str | tuple[str, ...]) -> Cluster:
    words = {n: (w,) if isinstance(w, str) else w for n, w in commands.items()}
    return Cluster(SlurmScheduler(Commands.of(words), cluster="mini"), LocalTransport())


def test_a_wrapper_gets_the_commands_arguments_and_its_input(tmp_path: Path) -> None:
    script = f'#!/bin/sh\necho "$@" > {tmp_path}/argv\ncat > {tmp_path}/stdin\necho "7;mini"\n'
    words = (wrapper(tmp_path, script), "-q", "sbatch")
    assert cluster(sbatch=words).submit(SCRIPT, "hbabc") == JobId("7")
    asked = (tmp_path / "argv").read_text().split()
    assert asked == ["-q", "sbatch", "--clusters=mini", "--parsable", "--job-name=hbabc"]
    assert (tmp_path / "stdin").read_text() == SCRIPT


def test_what_shapes_an_output_reaches_the_command_through_a_wrapper(tmp_path: Path) -> None:
    script = f'#!/bin/sh\necho "$TZ $SLURM_TIME_FORMAT $LC_ALL" > {tmp_path}/env\n'
    cluster(squeue=wrapper(tmp_path, script)).status()
    assert (tmp_path / "env").read_text() == "UTC standard C.UTF-8\n"


def test_every_command_has_its_own_entry() -> None:
    names = ("sbatch", "squeue", "sacct", "scancel", "scontrol", "sinfo")
    slurm = SlurmScheduler(Commands.of({name: ("/site/wrap", name) for name in names}))
    jobs = [JobId("1")]
    commands = [
        slurm.submit_command("hb"),
        slurm.status_command("me"),
        slurm.find_command("hb", "me"),
        slurm.demand_command(),
        slurm.history_command(jobs, "me", SINCE),
        slurm.find_history_command("hb", "me", SINCE),
        slurm.usage_command(jobs, "me", SINCE),
        slurm.cancel_command(jobs),
        slurm.array_limit_command(),
        slurm.queue_command(),
    ]
    for command in commands:
        at = next(i for i, word in enumerate(command) if word in names)
        assert command[at - 1] == "/site/wrap"
        assert sum(word in names for word in command) == 1


def test_a_missing_wrapper_names_the_line_of_the_profile(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    with pytest.raises(CommandNotFound, match="was not found") as caught:
        cluster(squeue=(gone, "squeue")).status()
    assert f"scheduler.commands.squeue: {gone} squeue" in str(caught.value)
    assert not caught.value.retryable


def test_a_wrapper_that_cannot_be_executed_names_the_line_too(tmp_path: Path) -> None:
    path = wrapper(tmp_path, "#!/bin/sh\n", mode=0o644)
    with pytest.raises(CommandNotFound, match="cannot be run") as caught:
        cluster(sbatch=path).submit(SCRIPT, "hb")
    assert f"scheduler.commands.sbatch: {path}" in str(caught.value)


def test_a_command_that_the_wrapper_does_not_find_names_the_wrapper(tmp_path: Path) -> None:
    path = wrapper(tmp_path, "#!/bin/sh\nexec /nowhere/scancel\n")
    with pytest.raises(CommandNotFound, match="or one that it calls") as caught:
        cluster(scancel=path).cancel([JobId("1")])
    assert path in str(caught.value)


@pytest.mark.parametrize("kind", ["queues", "array_limit", "history"])
def test_other_missing_commands_name_theirs(kind: str) -> None:
    name = {"queues": "sinfo", "array_limit": "scontrol", "history": "sacct"}[kind]
    slurm = SlurmScheduler(Commands.of({name: ("/gone",)}))
    with pytest.raises(CommandNotFound, match=rf"scheduler\.commands\.{name}: /gone"):
        getattr(slurm, f"parse_{kind}")(Answer((name,), 127, "", "env: '/gone': No such file"))


def test_a_command_that_slurm_does_not_have_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"'sbacth' is never called; did you mean sbatch\?"):
        cluster(sbacth="/opt/sbatch")


def test_the_embedded_scheduler_has_no_command_to_replace(tmp_path: Path) -> None:
    assert LocalScheduler(tmp_path).submit_command("hb")[-1] == "submit"
    with pytest.raises(SettingsError, match="'sbatch' is never called"):
        Commands.of({"sbatch": ("x",)}).check(())


# noise

NOISE = "wrap: logged as 12; Connection refused by the log server, going on\n"


def test_noise_beside_good_answers_changes_nothing(tmp_path: Path) -> None:
    path = wrapper(tmp_path, f"#!/bin/sh\necho '{NOISE}' >&2\necho Welcome\necho '12;mini'\n")
    assert cluster(sbatch=path).submit(SCRIPT, "hb") == JobId("12")
    assert cluster(squeue=path).status() == {}


@pytest.mark.parametrize("version", VERSIONS)
def test_noise_makes_no_unavailable_slurm_of_a_refusal(version: str) -> None:
    given = answer(version, "submit-unknown-partition")
    noisy = Answer(given.command, given.exit_code, given.stdout, NOISE + given.stderr)
    with pytest.raises(SubmissionRefused) as caught:
        SlurmScheduler().parse_submit(noisy)
    assert not isinstance(caught.value, SchedulerUnavailable)
    assert NOISE.strip() in str(caught.value)


@pytest.mark.parametrize("version", VERSIONS)
def test_noise_hides_neither_an_ended_job_nor_an_error_of_scancel(version: str) -> None:
    over = answer(version, "scancel-bad-id")
    assert over.exit_code == 1
    SlurmScheduler().parse_cancel(Answer(over.command, 1, "", NOISE + over.stderr))
    denied = answer(version, "scancel-other-users-job")
    with pytest.raises(CommandError, match="Access/permission denied"):
        SlurmScheduler().parse_cancel(Answer(denied.command, 1, "", NOISE + denied.stderr))
