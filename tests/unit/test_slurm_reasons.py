"""Why a job waits: every reason of Slurm, and what real sites said."""

from __future__ import annotations

import json
import re

import pytest

from hpc_bridge.jobs import JobId, JobState, JobStatus
from hpc_bridge.jobs.reasons import Clears
from hpc_bridge.schedulers.base import Answer
from hpc_bridge.schedulers.slurm_reasons import explain
from tests.unit.slurm_answers import CAPTURES, SLURM, VERSIONS


def named(words: str) -> list[str]:
    return words.split()


RESOURCES = ("Mem", "Node", "Energy", "GRES", "License", "BB", "Billing", "Unknown")
BY_ITSELF = {
    *named("Priority Resources BeginTime Dependency Licenses Prolog Cleaning Reservation"),
    *named("Constraints JobArrayTaskLimit SchedDefer FedJobLock BurstBufferResources"),
    *named("BurstBufferStageIn MaxPoweredUpNodes MpiPortsBusy AssociationJobLimit QOSJobLimit"),
    *named("AssociationResourceLimit QOSResourceLimit ReqNodeNotAvail"),
    *named("QOSGrpCpuLimit QOSGrpCPURunMinutesLimit QOSGrpJobsLimit QOSGrpMemLimit"),
    *named("QOSGrpNodeLimit QOSGrpSubmitJobsLimit QOSMaxCpuPerUserLimit"),
    *named("QOSMaxJobsPerUserLimit QOSMaxNodePerUserLimit QOSMaxSubmitJobPerUserLimit"),
    *named("AssocGrpCpuLimit AssocGrpCPURunMinutesLimit AssocGrpJobsLimit AssocGrpMemLimit"),
    *named("AssocGrpNodeLimit AssocGrpSubmitJobsLimit AssocMaxJobsLimit"),
    *named("AssocMaxSubmitJobLimit MaxCpuPerAccount MaxJobsPerAccount"),
    *named("MaxSubmitJobsPerAccount MaxMemoryPerAccount QOSMaxMemoryPerUser"),
    *named("MaxCpuRunMinsPerAccount MaxCpuRunMinsPerUser QOSGrpMemoryRunMinutes"),
    *(f"AssocGrp{what}" for what in RESOURCES if what not in ("Mem", "Node")),
    *(f"AssocGrp{what}RunMinutes" for what in RESOURCES),
    *(f"QOSGrp{what}" for what in RESOURCES if what not in ("Mem", "Node")),
    *(f"QOSGrp{what}RunMinutes" for what in RESOURCES),
    *(f"QOSMax{what}PerUser" for what in RESOURCES),
    *(f"Max{what}PerAccount" for what in RESOURCES),
    *(f"Max{what}RunMinsPer{whom}" for what in RESOURCES for whom in ("Account", "User")),
}
BY_SOMEBODY = {
    *named("JobHeldUser JobHeldAdmin JobHoldMaxRequeue JobLaunchFailure BurstBufferOperation"),
    *named("SystemFailure PartitionDown PartitionInactive NodeDown FrontEndDown"),
    *named("ReservationDeleted ReservationInvalid QOSUsageThreshold AssociationTimeLimit"),
    *named("QOSTimeLimit QOSGrpCPUMinutesLimit QOSGrpWallLimit QOSGrpMemoryMinutes"),
    *named("AssocGrpCPUMinutesLimit AssocGrpWallLimit"),
    *(f"AssocGrp{what}Minutes" for what in RESOURCES),
    *(f"QOSGrp{what}Minutes" for what in RESOURCES),
}
NEVER = {
    *named("PartitionTimeLimit PartitionNodeLimit PartitionConfig BadConstraints"),
    *named("MaxMemPerLimit DependencyNeverSatisfied DeadLine InvalidAccount InvalidQOS"),
    *named("AccountNotAllowed QOSNotAllowed QOSMaxCpuPerJobLimit QOSMaxNodePerJobLimit"),
    *named("QOSMaxCpuMinutesPerJobLimit QOSMaxWallDurationPerJobLimit"),
    *named("QOSMinCpuNotSatisfied QOSMinMemory AssocMaxCpuPerJobLimit"),
    *named("AssocMaxCpuMinutesPerJobLimit AssocMaxNodePerJobLimit AssocMaxCpuPerNode"),
    *named("AssocMaxWallDurationPerJobLimit QOSMaxCpuPerNode QOSMaxMemoryPerJob"),
    *named("QOSMaxMemoryPerNode QOSMaxMemoryMinutesPerJob"),
    *(f"AssocMax{what}MinutesPerJob" for what in RESOURCES),
    *(f"{owner}Max{what}PerNode" for what in RESOURCES for owner in ("QOS", "Assoc")),
    *(f"{owner}Max{what}PerJob" for what in RESOURCES for owner in ("QOS", "Assoc")),
    *(f"QOSMin{what}" for what in RESOURCES),
}
PHRASES = {
    "ReqNodeNotAvail, UnavailableNodes:c[1-2]": Clears.BY_ITSELF,
    "ReqNodeNotAvail, May be reserved for other job": Clears.BY_ITSELF,
    "ReqNodeNotAvail, Reserved for maintenance": Clears.BY_ITSELF,
    "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions": (
        Clears.BY_ITSELF
    ),
    "Job's QOS not permitted to use this partition (gpu allows long not normal)": Clears.NEVER,
    "Job's account not permitted to use this partition (gpu allows a not b)": Clears.NEVER,
    "launch failed requeued held": Clears.BY_SOMEBODY,
    "user env retrieval failed requeued held": Clears.BY_SOMEBODY,
    "UserEnv retrieval failed, requeued held": Clears.BY_SOMEBODY,
    "job requeued in held state": Clears.BY_SOMEBODY,
}


@pytest.mark.parametrize(
    ("words", "clears"),
    [
        (BY_ITSELF, Clears.BY_ITSELF),
        (BY_SOMEBODY, Clears.BY_SOMEBODY),
        (NEVER, Clears.NEVER),
    ],
)
def test_every_reason_of_slurm_says_whether_it_clears(words: set[str], clears: Clears) -> None:
    told = {word: explain(word, "7").clears for word in words}
    assert told == dict.fromkeys(words, clears)


def test_reasons_that_are_sentences_are_read() -> None:
    assert {word: explain(word, "7").clears for word in PHRASES} == PHRASES


def test_a_meaning_is_whole_sentences() -> None:
    for word in (*BY_ITSELF, *BY_SOMEBODY, *NEVER, *PHRASES):
        reason = explain(word, "12_3")
        assert reason.word == word
        assert re.fullmatch(r"[A-Z][^{}]*(\.|scontrol release 12_3)", reason.meaning), word


@pytest.mark.parametrize("word", ["Nope", "", "priority", "QOSMaxTeaPerUser", "Priority, but not"])
def test_nothing_is_claimed_of_a_word_that_is_not_known(word: str) -> None:
    reason = explain(word, "7")
    assert (reason.word, reason.clears) == (word, Clears.UNKNOWN)


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("ReqNodeNotAvail, UnavailableNodes:c[1-2],g1", ["drained or reserved: c[1-2],g1."]),
        ("QOSMaxGRESPerUser", ["Your jobs", "GPUs", "its QOS", "by itself, it never does"]),
        ("QOSMaxJobsPerUserLimit", ["Your jobs that are running are as many as its QOS allows"]),
        ("AssocGrpCPUMinutesLimit", ["budget of CPUs", "your account is used up"]),
        ("AssocMaxWallDurationPerJobLimit", ["walltime is longer than your account allows"]),
        ("QOSMaxNodePerJobLimit", ["more nodes than its QOS allows one job"]),
        ("AssocMaxCpuMinutesPerJobLimit", ["CPUs times walltime"]),
        ("MaxCpuPerAccount", ["The jobs of your account", "that its QOS allows"]),
        ("QOSMinCpuNotSatisfied", ["minimum of CPUs that its QOS demands"]),
        ("JobHeldUser", ["scontrol release 42"]),
    ],
)
def test_a_limit_is_told_by_what_it_limits_and_for_whom(word: str, words: list[str]) -> None:
    meaning = explain(word, "42").meaning
    for part in words:
        assert part in meaning


def test_only_a_job_that_waits_has_a_reason_to() -> None:
    def status(state: JobState, reason: str | None) -> JobStatus:
        return JobStatus(JobId("1"), "hb", state, state.value, reason=reason)

    assert SLURM.explain_reason(status(JobState.FAILED, "NonZeroExitCode")) is None
    assert SLURM.explain_reason(status(JobState.RUNNING, "Priority")) is None
    assert SLURM.explain_reason(status(JobState.PENDING, None)) is None
    for state in (JobState.PENDING, JobState.HELD, JobState.REQUEUED):
        assert SLURM.explain_reason(status(state, "Priority")) == explain("Priority", "1")


# What was asked for on the test site, and by the job's name why it waits there.
REAL = {
    "r-job-cpu": Clears.NEVER,
    "r-user-cpu": Clears.BY_ITSELF,
    "r-budget": Clears.BY_SOMEBODY,
    "r-min": Clears.NEVER,
    "r-node": Clears.NEVER,
    "r-grp-jobs": Clears.BY_ITSELF,
    "r-minutes": Clears.NEVER,
    "r-acct": Clears.BY_ITSELF,
    "r-partition-time": Clears.NEVER,
    "r-held": Clears.BY_SOMEBODY,
    "r-held-admin": Clears.BY_SOMEBODY,
    "r-requeue-hold": Clears.BY_SOMEBODY,
    "r-begin": Clears.BY_ITSELF,
    "r-assoc-jobs": Clears.BY_ITSELF,
    "r-dependency": Clears.BY_ITSELF,
    "r-dependency-never": Clears.NEVER,
    "r-drained": Clears.BY_ITSELF,
    "r-partition-down": Clears.BY_SOMEBODY,
    "r-reservation": Clears.BY_ITSELF,
    "r-array": Clears.BY_ITSELF,
}


@pytest.mark.parametrize("version", VERSIONS)
def test_what_real_sites_say_is_known(version: str) -> None:
    stored = json.loads((CAPTURES / version / "reasons-several.json").read_text())
    jobs = SLURM.parse_status(Answer((), 0, stored["stdout"], ""))
    reasons = {job.name: SLURM.explain_reason(job) for job in jobs.values() if job.state.is_waiting}
    told = {name: reason.clears for name, reason in reasons.items() if reason is not None}
    assert Clears.UNKNOWN not in told.values()
    assert {name: told.get(name) for name in REAL} == REAL
