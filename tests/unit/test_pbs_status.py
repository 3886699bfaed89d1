"""What PBS's states, substates and exit codes mean, on recorded jobs and each word."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from hpc_bridge.errors import CommandError, SchedulerUnavailable, UnexpectedOutput
from hpc_bridge.jobs import JobId, JobState
from hpc_bridge.schedulers.base import Answer
from tests.unit.pbs_answers import PBS, answer, job, records, status_of

# name of the transcript: job, state, exit code, signal, by whom it was cancelled
ENDS = {
    "finished_ok.qstat_xf": ("1", JobState.COMPLETED, 0, None, None),
    "finished_exit3.qstat_xf": ("32", JobState.FAILED, 3, None, None),
    "exit255.finished.qstat_xf": ("163", JobState.FAILED, 255, None, None),
    "selfkill9.finished.qstat_xf": ("153", JobState.FAILED, 137, None, None),
    "segv.finished.qstat_xf": ("156", JobState.FAILED, 139, None, None),
    "sigterm.finished.qstat_xf": ("158", JobState.FAILED, None, 15, None),
    "sigusr1.finished.qstat_xf": ("159", JobState.FAILED, None, 10, None),
    "walltime_killed.qstat_xf": ("26", JobState.TIMEOUT, None, None, None),
    "walltime_killed_plain.qstat_xf_json": ("27", JobState.TIMEOUT, None, None, None),
    "mem_over.finished.qstat_xf": ("1193", JobState.OUT_OF_MEMORY, None, None, None),
    "deleted_while_queued.qstat_xf": ("30", JobState.CANCELLED, None, None, None),
    "deleted_while_running.qstat_xf": ("28", JobState.CANCELLED, None, None, "researcher"),
    "qdeltrap.finished.qstat_xf": ("160", JobState.CANCELLED, None, None, "researcher"),
    "qdelforce.finished.qstat_xf": ("161", JobState.CANCELLED, None, None, "researcher"),
    "depend_afterok_failed.qstat_xf": ("34", JobState.CANCELLED, None, None, None),
    "depend_afterany_done.qstat_xf": ("35", JobState.COMPLETED, 0, None, None),
    "rerun.finished.qstat_xf": ("1197", JobState.FAILED, 6, None, None),
    "cwd_gone.finished.qstat_xf": ("168", JobState.COMPLETED, 0, None, None),
}
LIVE = {
    "running.qstat_xf": ("28", JobState.RUNNING, None),
    "suspended.qstat_xf": ("28", JobState.SUSPENDED, None),
    "held.qstat_xf": ("29", JobState.HELD, "Hold_Types = u"),
    "qhold_later.qstat_f": ("222", JobState.HELD, "Hold_Types = u"),
    "qhold_later.released.qstat_f": ("222", JobState.PENDING, None),
    "depend_held.qstat_xf": ("34", JobState.PENDING, "depend = afterok:28.pbshost@pbshost"),
    "waiting.qstat_xf": ("33", JobState.PENDING, "Execution_Time = Tue Jan  1 00:00:00 2030"),
    "exiting.qstat_f_json": ("0", JobState.COMPLETING, None),
    # both with the Exit_status -11 and the obittime of the start before
    "after_qrerun_now.qstat_xf": ("28", JobState.STARTING, None),
    "rerun.t7.qstat_xf": ("1197", JobState.RUNNING, None),
}


@pytest.mark.parametrize("name", ENDS)
def test_the_end_of_a_recorded_job(name: str) -> None:
    number, *expected = ENDS[name]
    found = job(PBS.parse_history(answer("qstat", name)), f"{number}.pbshost")
    assert [found.state, found.exit_code, found.signal, found.cancelled_by] == expected


@pytest.mark.parametrize("name", LIVE)
def test_a_recorded_job_that_is_alive(name: str) -> None:
    number, state, reason = LIVE[name]
    found = job(PBS.parse_status(answer("qstat", name)), f"{number}.pbshost")
    assert (found.state, found.reason) == (state, reason)
    assert (found.exit_code, found.ended) == (None, None)


def test_all_that_is_known_of_a_job() -> None:
    found = job(PBS.parse_history(answer("qstat", "mem_over.finished.qstat_xf")), "1193.pbshost")
    assert (found.name, found.scheduler_state, found.nodes) == ("memover", "F", "pbshost")
    assert found.submitted == datetime(2026, 11, 21, 2, 31, 2, tzinfo=UTC)
    assert found.started == datetime(2026, 11, 21, 2, 31, 3, tzinfo=UTC)
    assert found.ended == datetime(2026, 11, 21, 2, 31, 15, tzinfo=UTC)
    assert found.reason is not None
    assert "more memory" in found.reason
    assert "-27" in found.reason


def test_output_that_was_not_delivered_is_said() -> None:
    found = job(PBS.parse_history(answer("qstat", "cwd_gone.finished.qstat_xf")), "168.pbshost")
    assert found.reason is not None
    assert "undelivered" in found.reason


# words


@pytest.mark.parametrize("letter", ["", "Z", "running", "C"])
def test_an_unknown_word_is_named_and_hides_no_other_job(letter: str) -> None:
    with pytest.raises(UnexpectedOutput, match=f"job 1.server is in state {letter!r}") as caught:
        PBS.parse_status(records({"job_state": letter}, {"job_state": "R"}))
    assert [known.value for known in caught.value.readable] == ["2.server"]


def test_an_exit_status_that_is_no_number_is_named() -> None:
    with pytest.raises(UnexpectedOutput, match="Exit_status 'soon'"):
        status_of(job_state="F", Exit_status="soon")


@pytest.mark.parametrize(
    ("code", "state"),
    [
        ("-30", JobState.NODE_FAIL),
        ("-29", JobState.TIMEOUT),
        ("-28", JobState.FAILED),
        ("-26", JobState.OUT_OF_MEMORY),
        ("-20", JobState.NODE_FAIL),
        ("-4", JobState.NODE_FAIL),
        ("-2", JobState.BOOT_FAIL),
        ("-99", JobState.FAILED),
    ],
)
def test_below_zero_pbs_itself_ended_the_job_and_the_code_is_said(
    code: str, state: JobState
) -> None:
    found = status_of(job_state="F", substate="93", Exit_status=code)
    assert (found.state, found.exit_code, found.signal) == (state, None, None)
    assert found.reason is not None
    assert f"Exit_status {code}" in found.reason


def test_deleted_is_deleted_whatever_the_exit_status() -> None:
    found = status_of(job_state="F", substate="91", Exit_status="0")
    assert found.state is JobState.CANCELLED


def test_a_job_that_ran_and_left_no_exit_status_has_not_succeeded() -> None:
    found = status_of(job_state="F", substate="92", exec_host="c1/0")
    assert found.state is JobState.FAILED


def test_a_queued_job_that_has_run_before_is_requeued() -> None:
    found = status_of(job_state="Q", run_count="1", stime="Sat Nov 21 02:31:03 2026")
    assert (found.state, found.started, found.nodes) == (JobState.REQUEUED, None, None)


def test_a_job_on_several_nodes_names_each_once() -> None:
    assert status_of(exec_host="c1/0*2+c1/1*2+c2/0").nodes == "c1,c2"


def test_when_a_job_is_expected_to_start() -> None:
    found = status_of(**{"job_state": "Q", "estimated.start_time": "Sat Nov 21 03:00:00 2026"})
    assert found.estimated_start == datetime(2026, 11, 21, 3, tzinfo=UTC)


# arrays


def test_an_array_is_told_by_its_elements() -> None:
    found = PBS.parse_history(answer("qstat", "array.finished.qstat_xtf_json"))
    states = {known.value: status.state for known, status in found.items()}
    assert states == {
        "41[0].pbshost": JobState.COMPLETED,
        "41[1].pbshost": JobState.FAILED,
        "41[2].pbshost": JobState.COMPLETED,
        "41[3].pbshost": JobState.CANCELLED,
    }


def test_an_element_is_over_while_its_array_goes_on() -> None:
    found = PBS.parse_status(
        records(
            {"id": "4[].server", "job_state": "B", "array": "True", "Exit_status": "0"},
            {
                "id": "4[0].server",
                "job_state": "X",
                "substate": "93",
                "Exit_status": "3",
                "run_count": "1",
            },
            {"id": "4[1].server", "job_state": "Q"},
        )
    )
    assert job(found, "4[0].server").exit_code == 3
    assert job(found, "4[1].server").state is JobState.PENDING
    assert len(found) == 2


@pytest.mark.parametrize("stage", ["waiting", "begun", "one_over", "one_failed"])
@pytest.mark.parametrize("form", ["qstat_tf", "qstat_tf_json"])
def test_what_is_said_of_an_array_is_not_said_of_its_elements(stage: str, form: str) -> None:
    """Element 3 was deleted in the queue; PBS shows it with its array's times and Exit_status."""
    given = answer("qstat", f"array_part.{stage}.{form}")
    found = PBS.parse_status(given)
    indices = {known.value[known.value.index("[") + 1] for known in found}
    assert indices == {"0", "1", "2"}  # of 3 nothing is known from the queue
    waiting = [status for status in found.values() if status.state is JobState.PENDING]
    assert len(waiting) == {"waiting": 3, "begun": 2, "one_over": 1, "one_failed": 0}[stage]
    assert all(status.reason is None and status.started is None for status in waiting)
    (deleted,) = (
        status for known, status in PBS.parse_history(given).items() if "[3]" in known.value
    )
    assert deleted.state is JobState.CANCELLED
    assert (deleted.exit_code, deleted.started, deleted.ended) == (None, None, None)


def test_elements_that_ran_and_one_that_never_did_are_told_apart() -> None:
    given = answer("qstat", "array_part.finished.qstat_xtf_json")
    ends = [(status.state, status.exit_code) for status in PBS.parse_history(given).values()]
    assert ends == [
        (JobState.COMPLETED, 0),
        (JobState.FAILED, 1),
        (JobState.FAILED, 2),
        (JobState.CANCELLED, None),
    ]
    assert len(PBS.parse_usage(given)) == 3


def test_an_element_is_held_with_its_array() -> None:
    """``qstat -t`` calls it queued (array_hold.qstat_t)."""
    found = PBS.parse_status(
        records(
            {"id": "4[].server", "job_state": "H", "substate": "20", "Hold_Types": "u"},
            {"id": "4[0].server", "job_state": "Q"},
        )
    )
    element = job(found, "4[0].server")
    assert (element.state, element.reason) == (JobState.HELD, "Hold_Types = u")


def test_an_array_of_which_no_element_is_told_stays() -> None:
    found = PBS.parse_status(answer("qstat", "array.running.qstat_f_json"))
    assert [known.value for known in found] == ["41[].pbshost"]
    assert job(found, "41[].pbshost").state is JobState.RUNNING


# damage


@pytest.mark.parametrize(
    "value",
    ["nan", "inf", "00", "+5", "5.", r'"a\Ub"', '"a\x01b"', '"^\ufffd"', '"a\tb"', '"a"b"'],
)
def test_damage_in_anybodys_attribute_hides_nobodys_job(value: str) -> None:
    """As v23.06.06 prints what strtod() takes, and what is not ASCII."""
    text = f"""{{
    "timestamp":1795226696,
    "Jobs":{{
        "1.server":{{
            "Job_Name":{value},
            "Job_Owner":"other@host",
            "job_state":"R",
            "Variable_List":{{
                "X":{value},
                "Y":{value}
            }},
            "jobs":[
                "1.server"
            ],
            "substate":42
        }},
        "2.server":{{
            "Job_Name":"ours",
            "job_state":"F",
            "substate":92,
            "Exit_status":0
        }}
    }}
}}
"""
    found = PBS.parse_status(Answer(("qstat",), 0, text, ""))
    assert job(found, "2.server").state is JobState.COMPLETED
    assert job(found, "2.server").name == "ours"
    assert job(found, "1.server").state is JobState.RUNNING


def test_why_pbs_itself_holds_a_job_is_said() -> None:
    comment = "Job Array Held, too many failed attempts to run subjob 4[1].server"
    assert status_of(job_state="H", Hold_Types="s", comment=comment).reason == comment


def test_an_odd_value_stays_in_its_line() -> None:
    odd = "a\\nJob Id: 9.server\u2028    substate = 41\x0b\x85\r"
    found = PBS.parse_status(records({"Job_Name": "x", "Variable_List": odd}, {}))
    assert {known.value for known in found} == {"1.server", "2.server"}
    assert all(status.state is JobState.RUNNING for status in found.values())


def test_the_first_of_an_attribute_counts() -> None:
    text = "Job Id: 1.server\n    job_state = R\n    job_state = F\n\n"
    found = PBS.parse_status(Answer(("qstat",), 0, text, ""))
    assert job(found, "1.server").state is JobState.RUNNING


# answers that are none


@pytest.mark.parametrize("name", ["nohistory.qstat_x_f_json", "nohistory.unknown.qstat_xf_json"])
def test_without_history_the_records_know_no_job(name: str) -> None:
    assert PBS.parse_history(answer("qstat", name)) == {}
    assert PBS.parse_usage(answer("qstat", name)) == {}


def test_a_server_without_history_is_an_answer_whatever_the_exit_code() -> None:
    said = answer("qstat", "nohistory.qstat_x").stderr
    assert PBS.parse_history(records(exit_code=1, stderr=said)) == {}


def test_a_server_that_is_down_is_no_empty_queue_although_its_json_looks_like_one() -> None:
    down, empty = answer("qstat", "down.qstat_f_json"), answer("qstat", "qstat_f_json_empty")
    assert '"Jobs"' not in down.stdout + empty.stdout
    assert PBS.parse_status(empty) == {}
    for parse in (PBS.parse_status, PBS.parse_history, PBS.parse_find, PBS.parse_usage):
        with pytest.raises(SchedulerUnavailable, match="Connection refused") as caught:
            parse(down)
        assert caught.value.retryable


def test_known_jobs_are_read_beside_one_that_pbs_has_no_more() -> None:
    found = PBS.parse_history(answer("qstat", "qstat_several_ids_some_unknown"))
    assert {JobId("28.pbshost"), JobId("32.pbshost")} <= set(found)


def test_an_answer_is_not_used_when_the_ports_ran_out() -> None:
    """``pbs_iff`` says so while qstat's exit code is 0."""
    stderr = "pbs_iff: all reserved ports in use\n"
    with pytest.raises(SchedulerUnavailable):
        PBS.parse_status(records({}, stderr=stderr))


def test_a_failed_query_is_never_an_empty_answer() -> None:
    with pytest.raises(CommandError, match="no message"):
        PBS.parse_status(Answer(("qstat",), 1, "", ""))
