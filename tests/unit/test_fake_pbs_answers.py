"""The fake PBS answers as the real one did: every form and every refusal that was recorded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fake_pbs import FakePBS
from tests.fake_pbs.server.forms import json_answer, text_record
from tests.unit.pbs_recorded import (
    RECORDED,
    RESEARCHER,
    records,
    same,
    stdout_of,
    without_time,
)

# Forms, byte by byte

TEXTS = [
    name
    for name, entry in RECORDED.items()
    if entry["command"][0] == "qstat"
    and "-f" in entry["command"]
    and "-F" not in entry["command"]
    and stdout_of(entry)
]
SHOWN_ONCE = ("unicode_", "/cr.", "/latin1.")
"""Text in which bytes were already made visible does not say what they were."""
PAIRS = [
    (name, twin)
    for name in TEXTS
    if (twin := re.sub(r"(qstat_x?f)$", r"\1_json", name)) in RECORDED
    and twin != name
    and not any(part in f"/{name}" for part in SHOWN_ONCE)
    and not name.startswith("rerun.t0")  # the job changed between the two
]


@pytest.mark.parametrize("name", [n for n in TEXTS if "unicode_" not in n])
def test_the_text_of_a_recorded_job_is_written_again_byte_by_byte(name: str) -> None:
    text = stdout_of(RECORDED[name])
    is_wide = "-w" in RECORDED[name]["command"]
    again = [text_record(f"Job Id: {job}", rows, is_wide) for job, rows in records(text, is_wide)]
    assert "".join(again) == text


@pytest.mark.parametrize(("name", "twin"), PAIRS)
def test_the_json_of_a_recorded_job_follows_from_its_text(name: str, twin: str) -> None:
    jobs = records(stdout_of(RECORDED[name]))
    answer = json_answer("pbshost", "23.06.06", "Jobs", jobs)
    assert without_time(answer) == without_time(stdout_of(RECORDED[twin]))


@pytest.mark.parametrize(
    "name", ["unicode_e", "unicode_snow", "cr", "ctrl_a", "nan", "neghex", "newline", "only_space"]
)
def test_a_variable_breaks_the_answer_as_it_did(name: str, pbs: FakePBS) -> None:
    recorded = RECORDED[f"json_trap/{name}.qsub"]
    variables = RESEARCHER | recorded["environment"]
    job = pbs.run(*recorded["command"], variables=variables).stdout.decode().strip()
    for form, command in (("qstat_f", ["-f"]), ("qstat_f_json", ["-f", "-F", "json"])):
        answer = pbs.run("qstat", *command, job).stdout.decode("latin-1")
        expected = stdout_of(RECORDED[f"json_trap/{name}.{form}"])
        assert _variable(answer) == _variable(expected)
        assert _variable(answer)


def _variable(answer: str) -> list[str]:
    """X, and in text all that shares a line with it up to the next variable."""
    return re.findall(r'"X":.*|X=[^,]*', answer.replace("\n\t", ""))


# Refusals

REFUSED = [
    name
    for name, entry in RECORDED.items()
    if entry["command"][0] == "qsub"
    and entry["exit_code"] != 0
    and not name.startswith(("down.", "limits."))
    and name
    not in (
        "qsub.as_root",  # tests may run as root
        "qsub.script_unreadable",  # root can read
        "qsub.other_group",  # root is in the group root
        "qsub.bad_directive",  # needs its script: below
        "qsub.array_no_rerun_script",  # so does this
        "json_trap/text_o_uni",
    )
]


@pytest.fixture(scope="module")
def pbs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakePBS]:
    with FakePBS(tmp_path_factory.mktemp("pbs"), kill_delay=1.0, check_interval=0.2) as fake:
        yield fake
        assert not fake.errors()


@pytest.mark.parametrize("name", REFUSED)
def test_qsub_refuses_in_the_recorded_words(name: str, pbs: FakePBS) -> None:
    entry = RECORDED[name]
    (pbs.home / "job.sh").write_text("#!/bin/bash\n")
    command = ["/" if word == "/home/researcher" else word for word in entry["command"]]
    variables = RESEARCHER | (entry.get("environment") or {})
    same(pbs.run(*command, stdin="true\n", variables=variables), entry)


def test_a_directive_that_is_none_is_named(pbs: FakePBS) -> None:
    (pbs.home / "baddir.sh").write_text("#!/bin/bash\n#PBS -Z foo\necho hi\n")
    same(pbs.run("qsub", "baddir.sh"), RECORDED["qsub.bad_directive"])


def test_an_array_that_may_not_be_rerun_is_refused(pbs: FakePBS) -> None:
    (pbs.home / "norerun.sh").write_text("#!/bin/bash\n#PBS -J 0-2\n#PBS -r n\ntrue\n")
    same(pbs.run("qsub", "norerun.sh"), RECORDED["qsub.array_no_rerun_script"])


@pytest.mark.parametrize(
    ("limit", "config"),
    [
        ("acl_user", {"queues": {"workq": {"acl_users": ["somebody"]}}}),
        ("queue_disabled", {"queues": {"workq": {"enabled": False}}}),
        (
            "walltime_over_queue_max",
            {"queues": {"workq": {"resources_max": {"walltime": "1:00:00"}}}},
        ),
        ("ncpus_over_queue_max", {"queues": {"workq": {"resources_max": {"ncpus": 4}}}}),
        ("max_queued", {"limits": {"max_queued": 0}}),
    ],
)
def test_a_limit_refuses_in_the_recorded_words(
    limit: str, config: dict[str, Any], tmp_path: Path
) -> None:
    name = f"limits.{limit}.{'second' if limit == 'max_queued' else 'qsub'}"
    with FakePBS(tmp_path, **config) as pbs:
        same(pbs.run(*RECORDED[name]["command"], variables=RESEARCHER), RECORDED[name])


DOWN = [
    name
    for name, entry in RECORDED.items()
    if name.startswith("down.") and "connect" in entry["stderr"] and "pbshost" in entry["stderr"]
]


@pytest.mark.parametrize("name", DOWN)
def test_a_server_that_is_down_is_told_in_the_recorded_words(name: str, pbs: FakePBS) -> None:
    with pbs.switched("down"):
        same(pbs.run(*RECORDED[name]["command"]), RECORDED[name])


@pytest.mark.parametrize(
    "name",
    [
        "qstat_unknown",
        "qstat_f_unknown",
        "qstat_xf_unknown",
        "qstat_xf_json_unknown",
        "qstat_bad_id",
        "qstat_bad_server",
        "qstat_F_json_without_f",
        "array.running.qstat_sub_nosuch",
        "array.running.qstat_noBrackets",
        "qdel_unknown",
        "qdel_bad_id",
        "array.qdel_range_bad",
        "qselect_none",
        "find.qselect_N_none",
        "pbsnodes_unknown",
        "qsub.version",
    ],
)
def test_what_needs_no_job_is_answered_as_recorded(name: str, tmp_path: Path) -> None:
    with FakePBS(tmp_path) as empty:
        same(empty.run(*RECORDED[name]["command"], variables=RESEARCHER), RECORDED[name])


def test_a_server_without_jobs_has_no_key_jobs_and_no_newline(tmp_path: Path) -> None:
    with FakePBS(tmp_path) as empty:
        same(empty.run("qstat", "-f", "-F", "json"), RECORDED["qstat_f_json_empty"])
        same(empty.run("qstat"), RECORDED["qstat_empty"])


@pytest.mark.parametrize(
    "name",
    [
        "nohistory.qstat_x",
        "nohistory.qstat_x_f_json",
        "nohistory.qstat_x_f_json_job",
        "nohistory.finished.qstat_f_json",
        "nohistory.unknown.qstat_f_json",
        "nohistory.unknown.qstat_xf_json",
    ],
)
def test_a_server_without_history_says_so(name: str, pbs: FakePBS) -> None:
    with pbs.switched("no-history"):
        same(pbs.run(*RECORDED[name]["command"]), RECORDED[name])
