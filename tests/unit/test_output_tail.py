"""The last lines of a job's output."""

from __future__ import annotations

import os

from hpc_bridge.journal import RunDirectory
from tests.unit.folders import element_folder


def test_a_job_that_printed_nothing_has_no_tail(run: RunDirectory) -> None:
    assert run.output_tail() == ""
    run.output().write_bytes(b"")
    assert run.output_tail() == ""


def test_the_tail_is_the_last_lines(run: RunDirectory) -> None:
    run.output().write_text("".join(f"{number}\n" for number in range(100)))
    assert run.output_tail().split("\n") == [str(number) for number in range(80, 100)]
    assert run.output_tail(lines=1) == "99"


def test_the_tail_of_a_huge_output_is_read_from_its_end(run: RunDirectory) -> None:
    with run.output().open("wb") as file:
        file.truncate(10 * 2**40)  # ten sparse terabytes
        file.seek(0, os.SEEK_END)
        file.write(b"\nthe end\n")
    assert run.output_tail(lines=1) == "the end"


def test_a_tail_that_is_no_utf8_is_shown_all_the_same(run: RunDirectory) -> None:
    run.output().write_bytes(b"caf\xe9 \xff\xfe\nbye \xe2\x9c\x93\n")
    assert run.output_tail() == "caf\ufffd \ufffd\ufffd\nbye ✓"


def test_the_zeros_that_a_nodes_crash_leaves_are_not_in_the_tail(run: RunDirectory) -> None:
    """No database takes them as text, and the end of the run would never be told."""
    run.output().write_bytes(b"fi\0rst\nlast\n" + b"\0" * 512)
    assert run.output_tail() == "first\nlast"
    run.output().write_bytes(b"\0" * 100_000)
    assert run.output_tail() == ""


def test_an_array_has_an_output_for_each_element_and_a_job_has_one(run: RunDirectory) -> None:
    """The first version had one alone; a job that was never an array still has."""
    (run.path / "job.out").write_text("all\n")
    (element_folder(run, 3) / "job.out").write_text("third\n")
    assert [run.output(element).parent.name for element in (0, 3)] == [run.path.name, "3"]
    assert [run.output_tail(element=element) for element in (0, 3)] == ["all", "third"]


def test_the_output_of_an_element_that_has_not_printed_is_empty(run: RunDirectory) -> None:
    assert run.output_tail(element=4) == ""
