"""Every answer of a real PBS server parses, or is the error that its words say."""

from __future__ import annotations

import re

import pytest

from hpc_bridge.errors import (
    CommandError,
    HPCBridgeError,
    SchedulerUnavailable,
    SubmissionRefused,
    TooManyJobs,
    UnexpectedOutput,
)
from hpc_bridge.jobs import JobId
from tests.unit.pbs_answers import PBS, Transcript, transcripts

QSTAT = transcripts("qstat")
FULL = {name: given for name, given in QSTAT.items() if given.is_of_full_records}
OTHERS = QSTAT.keys() - FULL.keys()
# Two forms of the same jobs; where a job was changing, between one and the other it did.
PAIRS = [
    (text, text + "_json")
    for text in FULL
    if text.endswith(("qstat_xf", "qstat_f"))
    and text + "_json" in FULL
    and not text.startswith("rerun.t")
]
GONE = re.compile(r"Unknown Job Id|Job has finished")
NO_HISTORY = "not configured to maintain job history"


def expected(given: Transcript) -> type[HPCBridgeError] | None:
    code, stderr = given.answer.exit_code, given.answer.stderr
    if "pbsconf error" in stderr:
        return CommandError
    if code in (255, 162, 160) or (given.answer.command[0] == "pbsnodes" and "15010" in stderr):
        return SchedulerUnavailable
    return CommandError if code and not GONE.search(stderr) else None


@pytest.mark.parametrize("name", FULL)
def test_full_records_of_jobs_are_read_or_the_error_is_named(name: str) -> None:
    given = FULL[name]
    kind = expected(given)
    if kind is not None:
        with pytest.raises(kind) as caught:
            PBS.parse_status(given.answer)
        assert type(caught.value) is kind
        return
    found = PBS.parse_history(given.answer)
    stdout = given.answer.stdout
    ids = set(re.findall(r'^(?:Job Id: |\s+")(\d+(?:\[\d*\])?\.pbshost)', stdout, re.MULTILINE))
    arrays = {re.sub(r"\[\d+\]", "[]", job) for job in ids if re.search(r"\[\d", job)}
    assert {job.value for job in found} == ids - arrays
    if not ids:
        said = given.answer.stderr
        nothing = "empty" in name or "none" in name or name.startswith("privacy.qstat_other")
        assert GONE.search(said) or NO_HISTORY in said or nothing


@pytest.mark.parametrize(("text", "as_json"), PAIRS)
def test_both_forms_say_the_same(text: str, as_json: str) -> None:
    first, second = (PBS.parse_status(FULL[name].answer) for name in (text, as_json))
    assert first == second


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_a_form_that_was_not_asked_for_is_never_read_as_no_jobs(name: str) -> None:
    given = QSTAT[name]
    kind = expected(given)
    no_record = {"-Q", "-B"} & set(given.arguments) or not given.answer.stdout.strip()
    if kind is None and no_record:
        assert PBS.parse_status(given.answer) == {}
        return
    with pytest.raises(kind or UnexpectedOutput):
        PBS.parse_status(given.answer)


@pytest.mark.parametrize("name", transcripts("qsub"))
def test_a_submission_gives_an_id_or_the_servers_words(name: str) -> None:
    given = transcripts("qsub")[name].answer
    if given.exit_code == 0 and "version" not in name:
        assert PBS.parse_submit(given) == JobId(given.stdout.strip())
        return
    kind: type[HPCBridgeError] = SubmissionRefused
    if given.exit_code == 0:
        kind = UnexpectedOutput
    elif given.exit_code in (160, 162):
        kind = SchedulerUnavailable
    elif given.exit_code == 38:
        kind = TooManyJobs
    with pytest.raises(kind) as caught:
        PBS.parse_submit(given)
    assert type(caught.value) is kind
    words = given.stderr.split("\nusage:")[0].strip()
    assert words in str(caught.value)


@pytest.mark.parametrize("name", transcripts("qdel"))
def test_a_deletion_succeeds_or_says_why_not(name: str) -> None:
    given = transcripts("qdel")[name].answer
    if given.exit_code in (0, 35, 55, 153, 168):  # over, or about to be
        PBS.parse_cancel(given)
        return
    with pytest.raises(SchedulerUnavailable if given.exit_code == 162 else CommandError):
        PBS.parse_cancel(given)


@pytest.mark.parametrize("name", [name for name, given in QSTAT.items() if "-B" in given.arguments])
def test_the_server_says_how_large_an_array_may_be(name: str) -> None:
    given = QSTAT[name].answer
    if "json" in given.command:
        assert PBS.parse_array_limit(given) == 10000
    else:
        with pytest.raises(HPCBridgeError):
            PBS.parse_array_limit(given)


@pytest.mark.parametrize("name", transcripts("qselect"))
def test_qselect_lists_ids_alone(name: str) -> None:
    """As the programs of shell that call it take them."""
    given = transcripts("qselect")[name].answer
    if given.exit_code:
        with pytest.raises(SchedulerUnavailable):
            PBS.parse_find(given)
    else:
        assert re.fullmatch(r"(\d+(\[\])?\.pbshost\n)*", given.stdout)
