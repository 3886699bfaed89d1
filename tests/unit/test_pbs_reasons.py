"""Why a job waits in PBS, and whether that ever ends."""

from __future__ import annotations

import pytest

from hpc_bridge.jobs.reasons import Clears
from tests.unit.pbs_answers import PBS, answer, job, status_of, transcripts

SELF, SOMEBODY, NEVER = Clears.BY_ITSELF, Clears.BY_SOMEBODY, Clears.NEVER
WORDS = [
    ("Can Never Run: Insufficient amount of resource: ncpus (R: 999 A: 8 T: 8)", NEVER, "999"),
    ("Can Never Run: Not enough total nodes available", NEVER, "as it is"),
    ("Can Never Run: Job would conflict with reservation or top job", NEVER, "as it is"),
    ("Can Never Run: something new", NEVER, "something new"),
    ("Not Running: Insufficient amount of resource: ncpus (R: 8 A: 5 T: 8)", SELF, "5 of 8"),
    ("Not Running: Insufficient amount of resource: ncpus (R: 9 A: 5 T: 8)", NEVER, "ncpus=9"),
    ("Not Running: Insufficient amount of resource: ncpus ", SELF, "ncpus"),
    ("Not Running: Insufficient amount of queue resource: ngpus (R: 2 A: 0 T: 4)", SELF, "ngpus"),
    ("Not Running: Not enough free nodes available", SELF, "in use"),
    ("Not Running: Queue not started.", SOMEBODY, "queue"),
    ("Not Running: User has reached server running job limit.", SELF, "jobs of yours"),
    ("Not Running: Server job limit has been reached.", SELF, "As many jobs"),
    ("Not Running: Queue workq per-user limit reached on resource ncpus", SELF, "ask for less"),
    ("Not Running: Job would conflict with reservation or top job", SELF, "walltime"),
    ("Not Running: Job would cross dedicated time boundary", SELF, "dedicated"),
    ("Not Running: Draining system to allow starving job to run", SELF, "waited too long"),
    ("Not Running: PBS Error: Execution server rejected request", SOMEBODY, "rejected request"),
    ("job held, too many failed attempts to run", SOMEBODY, "qrls 1.server"),
    ("Job Array Held, too many failed attempts to run subjob 4[1].server", SOMEBODY, "20 starts"),
    ("job held, provisioning failed to start", SOMEBODY, "ask the site"),
    ("Hold_Types = u", SOMEBODY, "qrls 1.server"),
    ("Hold_Types = us", SOMEBODY, "administrator"),
    ("depend = afterok:28.pbshost@pbshost", SELF, "afterok:28"),
    ("Execution_Time = Tue Jan  1 00:00:00 2030", SELF, "2030"),
    ("Not Running: a word of tomorrow", Clears.UNKNOWN, "not known"),
]


@pytest.mark.parametrize(("word", "clears", "says"), WORDS)
def test_what_a_reason_means(word: str, clears: Clears, says: str) -> None:
    status = status_of(job_state="Q", comment=word)
    reason = PBS.explain_reason(status)
    assert reason is not None
    assert (reason.word, reason.clears) == (word.strip(), clears)
    assert says in reason.meaning


def test_every_recorded_wait_has_a_meaning() -> None:
    waiting = 0
    for given in transcripts("qstat").values():
        if not given.is_of_full_records or given.answer.exit_code:
            continue
        for status in PBS.parse_status(given.answer).values():
            reason = PBS.explain_reason(status)
            if reason is not None:
                waiting += 1
                assert reason.clears is not Clears.UNKNOWN, reason
    assert waiting > 100


def test_a_job_that_does_not_wait_has_no_reason_to() -> None:
    running = job(PBS.parse_status(answer("qstat", "running.qstat_f")), "28.pbshost")
    ended = job(PBS.parse_history(answer("qstat", "walltime_killed.qstat_xf")), "26.pbshost")
    assert PBS.explain_reason(running) is None
    assert PBS.explain_reason(ended) is None
