"""The embedded scheduler: what it reads in scripts."""

from __future__ import annotations

import calendar
import re
import time

import pytest

from hpc_bridge.schedulers.local_directives import (
    Refused,
    Request,
    read_begin,
    read_memory,
    read_request,
    read_signal,
    read_walltime,
    signal_number,
    split_directive,
)
from tests.unit.local_jobs import NOW


def read(*lines: str) -> Request:
    return read_request("\n".join(["#!/bin/bash", *lines, "true", ""]), NOW)


def asked(*lines: str) -> dict[str, object]:
    """What the lines change in a request."""
    plain = vars(Request())
    return {name: value for name, value in vars(read(*lines)).items() if value != plain[name]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (" --time=5", ["--time=5"]),
        ("\t-J  name\t-c 2 ", ["-J", "name", "-c", "2"]),
        (" --comment='a b' -c2", ["--comment=a b", "-c2"]),
        (' --comment="it\'s"', ["--comment=it's"]),
        (r' --comment="a \"b\" \\ \$c"', [r'--comment=a "b" \ $c']),
        (r" --comment='a \' b'", ["--comment=a ' b"]),
        (r" --comment=a\"b\#c", ['--comment=a"b#c']),
        (r" --comment=a\ b", ["--comment=a", "b"]),
        (" -c2 # and why", ["-c2"]),
        (" -c2#and why", ["-c2"]),
        (" --comment='#1' -c2", ["--comment=#1", "-c2"]),
        (' "" -c2', []),
        (" --comment=tr'i'\"c\"ky", ["--comment=tricky"]),
    ],
)
def test_words_are_cut_as_sbatch_does(text: str, words: list[str]) -> None:
    assert split_directive(text) == words


def test_an_unmatched_quote_is_refused() -> None:
    with pytest.raises(Refused, match=re.escape("line 3: Unmatched `'` in [#SBATCH -J 'a b]")):
        read("# why", "#SBATCH -J 'a b")


@pytest.mark.parametrize(
    ("lines", "changes"),
    [
        ((), {}),
        (("#SBATCH --job-name=train",), {"name": "train"}),
        (("#SBATCH --job-name train",), {"name": "train"}),
        (("#SBATCH -J train",), {"name": "train"}),
        (("#SBATCH -Jtrain",), {"name": "train"}),
        (("#SBATCH --job-na=train",), {"name": "train"}),
        (("#SBATCH -J", "#SBATCH train"), {"name": "train"}),
        (("#SBATCH -J one", "#SBATCH -J two"), {"name": "two"}),
        (("#SBATCH --job-name=a=b",), {"name": "a=b"}),
        (("#SBATCH -t90 -c 4",), {"walltime": 5400, "cpus_per_task": 4}),
        (("#SBATCH -n2", "", "# words", "  # more", "#SBATCH -c3"),
         {"ntasks": 2, "cpus_per_task": 3}),
        (("#SBATCH -n2", "cd /tmp", "#SBATCH -c3"), {"ntasks": 2}),
        (("##SBATCH -n2", " #SBATCH -n2", "# SBATCH -n2"), {}),
        (("#SBATCH -N1 --ntasks-per-node=2",), {"ntasks_per_node": 2}),
        (("#SBATCH --nodes=1-4 --tasks-per-node=3",), {"ntasks_per_node": 3}),
        (("#SBATCH --mem=2G --mem-per-cpu 1500",),
         {"memory_per_node": 2048, "memory_per_cpu": 1500}),
        (("#SBATCH -D /a -o out -e err -i in --open-mode=append",),
         {"work_dir": "/a", "output": "out", "error": "err", "input": "in", "append": True}),
        (("#SBATCH --open-mode=append --open-mode=truncate",), {}),
        (("#SBATCH --begin=now+60",), {"begin": NOW + 60}),
        (("#SBATCH --export=nil --comment='x y'",), {"export": "NIL", "comment": "x y"}),
        (("#SBATCH -H --no-requeue --signal=B:USR1@30",),
         {"hold": True, "requeue": False, "signal": 10, "signal_shell": True, "signal_lead": 30}),
        (("#SBATCH --no-requeue --requeue",), {}),
        (("#SBATCH -p gpu -A acc -q high -C a&b --gres=gpu:2 -G1 --gpus-per-node=a100:1 -L lic"
          " -w n1 -x n2 --exclusive --exclusive=user --nice --nice=5 -k -k1 --mail-type=END"
          " -M other --reservation=r --deadline=now -Q -v --parsable -s -O",), {}),
    ],
)  # fmt: skip
def test_a_request_is_read_from_the_directives(
    lines: tuple[str, ...], changes: dict[str, object]
) -> None:
    assert asked(*lines) == changes


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--frobnicate=1", "unrecognized option '--frobnicate'"),
        ("-Z", "invalid option -- 'Z'"),
        ("--gpus-per=1", "option '--gpus-per' is ambiguous; possibilities: '--gpus-per-node'"),
        ("--time", "option '--time' requires an argument"),
        ("-t", "option requires an argument -- 't'"),
        ("--requeue=yes", "option '--requeue' doesn't allow an argument"),
        ("--nice 5", "Invalid directive found in batch script: 5"),
        ("train", "Invalid directive found in batch script: train"),
        ("--", "Invalid directive found in batch script: --"),
        ("--ntasks=0", 'Invalid numeric value "0" for --ntasks.'),
        ("-c two", 'Invalid numeric value "two" for --cpus-per-task.'),
        ("-N 0", '"0" is not a valid node count'),
        ("-N 2", "the embedded scheduler has one node, and --nodes=2 asks for more"),
        ("-N 2-4", "the embedded scheduler has one node, and --nodes=2-4 asks for more"),
        ("-a 1-3", "the embedded scheduler has no job arrays (--array)"),
        ("-d singleton", "the embedded scheduler has no job dependencies (--dependency)"),
        ("--container=x", "the embedded scheduler has no OCI containers (--container)"),
        ("hetjob", "the embedded scheduler has no heterogeneous jobs (hetjob)"),
        ("--export=PATH,A=1", "the embedded scheduler knows --export=NONE, ALL and NIL"),
        ("--open-mode=x", "Invalid --open-mode specification: x"),
        ("--mem=much", "Invalid --mem specification: 'much'"),
        ("-J 'a\tb'", "Invalid --job-name specification: it holds a control character"),
    ],
)
def test_a_bad_directive_is_refused_in_one_sentence(line: str, words: str) -> None:
    with pytest.raises(Refused) as caught:
        read(f"#SBATCH {line}")
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("", "Batch script is empty!"),
        (" \n\t\n", "Batch script contains only whitespace!"),
        ("#!/bin/sh\r\ntrue\r\n", "Batch script contains DOS line breaks"),
        ("#!/bin/sh\n\0", "Batch script contains a NULL character"),
    ],
)
def test_a_script_that_slurm_refuses_is_refused(script: str, words: str) -> None:
    with pytest.raises(Refused, match=words):
        read_request(script, NOW)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5400),
        ("0:30", 30),
        ("1:30", 90),
        ("01:00:00", 3600),
        ("2-0", 172800),
        ("1-12:30", 131400),
        ("1-12:30:05", 131405),
        ("100:00:00", 360000),
        ("0", None),
        ("UNLIMITED", None),
        ("infinite", None),
        ("-1", None),
    ],
)
def test_walltimes(text: str, seconds: int | None) -> None:
    assert read_walltime(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "1h", "1:2:3:4", "-2", "1-", "1.5"])
def test_walltimes_that_are_none(text: str) -> None:
    with pytest.raises(Refused, match="Invalid --time specification"):
        read_walltime(text)


@pytest.mark.parametrize(
    ("text", "mebibytes"),
    [("0", 0), ("1500", 1500), ("1500M", 1500), ("4g", 4096), ("1T", 1048576), ("1K", 1),
     ("2048K", 2), ("16GB", 16384)],
)  # fmt: skip
def test_memory(text: str, mebibytes: int) -> None:
    assert read_memory("mem", text) == mebibytes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("USR1", (10, False, 60)),
        ("B:SIGTERM@120", (15, True, 120)),
        ("R:12@5", (12, False, 5)),
        ("rb:usr2", (12, True, 60)),
    ],
)
def test_signals(text: str, expected: tuple[int, bool, int]) -> None:
    assert read_signal(text) == expected


@pytest.mark.parametrize("text", ["", "NONSENSE", "USR1@soon", "X:USR1", "0", "99"])
def test_signals_that_are_none(text: str) -> None:
    with pytest.raises(Refused, match="Invalid --signal specification"):
        read_signal(text)


def test_signal_numbers_are_those_of_this_machine() -> None:
    import signal

    for number in signal.Signals:
        known = signal_number(number.name)
        assert known is None or known == number
    assert [signal_number(name) for name in ("USR1", "SIGTERM", "10")] == [10, 15, 10]


@pytest.fixture
def _utc(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("_utc")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", NOW),
        ("now+60", NOW + 60),
        ("now+5minutes", NOW + 300),
        ("now+1hour", NOW + 3600),
        ("now+2days", NOW + 172800),
        ("2030-01-31", calendar.timegm((2030, 1, 31, 0, 0, 0))),
        ("2030-01-31T08:30", calendar.timegm((2030, 1, 31, 8, 30, 0))),
        ("2030-01-31T08:30:15", calendar.timegm((2030, 1, 31, 8, 30, 15))),
        ("16:00", calendar.timegm((2025, 6, 15, 16, 0, 0))),
        ("08:00:01", calendar.timegm((2025, 6, 16, 8, 0, 1))),
    ],
)
def test_begin_times(text: str, expected: float) -> None:
    assert read_begin(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "later", "now+", "now+5fortnights", "2030-13-01", "25:00"])
def test_begin_times_that_are_none(text: str) -> None:
    with pytest.raises(Refused, match="Invalid --begin specification"):
        read_begin(text, NOW)
