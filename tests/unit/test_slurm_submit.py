"""What Slurm takes and refuses, and which directives a user may not give."""

from __future__ import annotations

import re

import pytest

from hpc_bridge.errors import InvalidJobSpec, SubmissionRefused, UnexpectedOutput
from hpc_bridge.jobs import JobId
from hpc_bridge.schedulers.base import Answer
from tests.unit.slurm_answers import SLURM, VERSIONS, answer, captured, each_version

# submit

SUBMIT_TAKEN = [
    "ok", "accounting-dead", "bad-directory", "walltime-over-limit",
]  # fmt: skip
SUBMIT_REFUSED = [
    ("bad-gres", "Requested node configuration is not available"),
    ("bad-memory", "Invalid --mem specification"),
    ("bad-option", "unrecognized option '--no-such-option'"),
    ("bad-time", "Invalid --time specification"),
    ("empty", "Batch script is empty!"),
    ("enforced-impossible-memory", "Memory specification can not be satisfied"),
    ("enforced-nodes-too-many", "Batch job submission failed"),
    ("enforced-walltime-over-limit", "Requested time limit is invalid"),
    ("gres-too-many", "Requested node configuration is not available"),
    ("impossible-memory", "Memory specification can not be satisfied"),
    ("no-shebang", "This does not look like a batch script."),
    ("qos-submit-limit", "QOSMaxSubmitJobPerUserLimit"),
    ("unknown-account", "Invalid account or account/partition combination specified"),
    ("unknown-partition", "invalid partition specified: nope"),
    ("unknown-qos", "Invalid qos specification"),
]

# One version takes the job and lets it wait, another refuses it.
SUBMIT_EITHER = ["bad-dependency", "cpus-too-many", "nodes-too-many"]
SUBMIT_ELSEWHERE = {"command-missing", "controller-dead", "controller-hung"}


@each_version
def test_every_captured_submission_is_in_a_table(version: str) -> None:
    refused = {name for name, _ in SUBMIT_REFUSED}
    tables = {*SUBMIT_TAKEN, *refused, *SUBMIT_EITHER} | SUBMIT_ELSEWHERE
    assert captured(version, "submit") == tables


@each_version
def test_the_ids_of_submitted_jobs_are_read(version: str) -> None:
    for name in SUBMIT_TAKEN:
        given = answer(version, f"submit-{name}")
        assert SLURM.parse_submit(given) == JobId(given.stdout.strip())


@pytest.mark.parametrize(("name", "words"), SUBMIT_REFUSED)
def test_a_refusal_holds_slurms_own_words(name: str, words: str) -> None:
    for version in VERSIONS:
        given = answer(version, f"submit-{name}")
        with pytest.raises(SubmissionRefused, match=f"^Slurm refused the job: .*{words}") as caught:
            SLURM.parse_submit(given)
        error = caught.value
        assert (error.exit_code, error.stderr) == (given.exit_code, given.stderr)
        assert (error.command, error.retryable) == (list(given.command), False)


@each_version
def test_what_one_version_takes_and_another_refuses(version: str) -> None:
    for name in SUBMIT_EITHER:
        given = answer(version, f"submit-{name}")
        if given.exit_code == 0:
            assert SLURM.parse_submit(given) == JobId(given.stdout.strip())
        else:
            with pytest.raises(SubmissionRefused, match="Batch job submission failed"):
                SLURM.parse_submit(given)


@pytest.mark.parametrize(
    ("stdout", "job"),
    [
        ("123\n", "123"),
        ("123;cluster\n", "123"),
        ("123;my-cluster.site_1\n", "123"),
        ("Welcome to host 7!\n42 users\n\n123\n", "123"),
        ("99\n123\n", "123"),
        ("  123  \n", "123"),
        ("123\nbye\n", "123"),
    ],
)
def test_an_id_is_found_among_what_a_login_prints(stdout: str, job: str) -> None:
    assert SLURM.parse_submit(Answer((), 0, stdout, "")) == JobId(job)


@pytest.mark.parametrize("stdout", ["", "\n", "Submitted batch job 123\n", "job 123", "-1", "12.5"])
def test_an_answer_without_an_id_is_unexpected(stdout: str) -> None:
    with pytest.raises(UnexpectedOutput, match=re.escape(f"no job id but {stdout!r}")):
        SLURM.parse_submit(Answer((), 0, stdout, ""))


# directives of the user


@pytest.mark.parametrize(
    "line",
    [
        *("--job-name=mine", "--job-name mine", "--job=mine", "-Jmine", "-J mine"),
        *("--array=1-9", "--arr=1-9", "-a1-9"),
        *("--output=/tmp/x", "--out=/tmp/x", "-o /tmp/x", "--open-mode=truncate"),
        *("--export=ALL", "--exp=ALL", "--chdir=/tmp", "-D/tmp"),
        *("--wrap=true", "--wait", "-W", "--parsable", "--test-only"),
    ],
)
def test_a_directive_that_is_ours_is_refused(line: str) -> None:
    with pytest.raises(InvalidJobSpec, match=f"^directives: {line!r} is decided by hpc-bridge"):
        SLURM.check_directives(["--nice", line])


def test_other_directives_are_the_users() -> None:
    SLURM.check_directives(
        [
            *("--mail-type=END", "--mail-user me@site", "--nice", "--nice=5", "--hold", "-H"),
            *("--gres=gpu:1", "--exclusive=user", "--ntasks-per-socket=2", "-N2", "-n", "-t 5"),
            *("--export-file=/x", "--wait-all-nodes=1", "--error=/tmp/job.err", "-A proj"),
            *("--comment=--array=1-9", "--time-min=5", "--dependency=singleton"),
        ]
    )
