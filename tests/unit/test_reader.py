"""What trackers read together: what they are told, and how few commands that takes."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from hpc_bridge.errors import Unreachable
from hpc_bridge.journal import RunDirectory, new_submission_id
from hpc_bridge.storage.cluster_files import HERE, ClusterFiles, Part
from hpc_bridge.tracking import reader as module
from hpc_bridge.tracking.output import OutputRelay
from hpc_bridge.tracking.reader import Reader, output_size
from hpc_bridge.transports.base import Files
from tests.unit.counted_files import CountedFiles
from tests.unit.run_directories import claim
from tests.unit.test_output import FLOW_RUN, Server


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW_SECONDS", 0.05)
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.0)


@pytest.fixture
def files() -> CountedFiles:
    return CountedFiles()


def a_run(shared: Path, files: ClusterFiles, *, elements: int = 1) -> RunDirectory:
    run = RunDirectory(RunDirectory.create(shared, new_submission_id()).path, files)
    for element in range(elements):
        HERE.put(Files(str(run.path), {f"{element}/bundle.json": b"{}"}))
    return run


def together(*wanted: Coroutine[Any, Any, Any]) -> list[Any]:
    async def gathered() -> list[Any]:
        return await asyncio.gather(*wanted, return_exceptions=True)

    return asyncio.run(gathered())


@pytest.mark.parametrize("elsewhere", [True, False])
def test_a_listing_tells_traces_and_size_of_the_output(
    shared: Path, files: CountedFiles, elsewhere: bool
) -> None:
    run = a_run(shared, files if elsewhere else HERE)
    gone = RunDirectory(run.path.with_name("gone"), run.files)
    reader = Reader()
    listing, none = together(reader.listing(run, 0), reader.listing(gone, 0))
    assert none is None
    assert output_size(listing) is None
    assert run.traces_in(0, listing).attempt is None
    (claim(run, 1) / "exit.json").write_bytes(b"{}")
    (run.path / "job.out").write_bytes(b"12345")
    [listing] = together(reader.listing(run, 0))
    assert output_size(listing) == 5
    assert run.traces_in(0, listing) == run.traces(0)
    assert run.traces_in(0, listing).is_over


@pytest.mark.parametrize("elsewhere", [True, False])
def test_each_element_of_an_array_has_its_own_listing(
    shared: Path, files: CountedFiles, elsewhere: bool
) -> None:
    run = a_run(shared, files if elsewhere else HERE, elements=12)
    (run.element(1) / "job.out").write_bytes(b"1")
    (run.element(11) / "job.out").write_bytes(b"eleven")
    (claim(run, 0, 11) / "exit.json").write_bytes(b"{}")
    reader = Reader()
    for _ in range(2):  # now it is known for an array
        first, last = together(reader.listing(run, 1), reader.listing(run, 11))
        assert (output_size(first), output_size(last)) == (1, 6)
        assert [run.traces_in(1, first).is_over, run.traces_in(11, last).is_over] == [False, True]


def test_many_listings_are_one_command(shared: Path, files: CountedFiles) -> None:
    runs = [a_run(shared, files) for _ in range(50)]
    array = a_run(shared, files, elements=50)
    reader = Reader()
    wanted = [(run, 0) for run in runs] + [(array, element) for element in range(50)]
    together(*(reader.listing(*one) for one in wanted))
    assert files.commands == 1
    together(*(reader.listing(*one) for one in wanted))
    assert files.commands == 2


def test_an_element_of_a_large_array_is_not_the_whole_of_it(
    shared: Path, files: CountedFiles
) -> None:
    run = a_run(shared, files, elements=100)
    reader = Reader()
    together(reader.listing(run, 3))
    before = files.transport.bytes
    together(reader.listing(run, 3))
    assert files.transport.bytes - before < before / 20


def test_many_parts_are_few_commands_of_bounded_size(shared: Path, files: CountedFiles) -> None:
    mib = 1024 * 1024
    (shared / "large").write_bytes(bytes(8 * mib))
    parts = [Part(shared / "large", number * mib, mib) for number in range(8)]
    reader = Reader()
    assert [len(piece) for piece in together(*(reader.part(files, part) for part in parts))] == (
        [mib] * 8
    )
    assert files.commands == 4


def test_what_is_wrong_with_one_file_is_not_the_others_error(
    shared: Path, files: CountedFiles
) -> None:
    for number in range(9):
        (shared / f"{number}").write_bytes(b"%d" % number)
    (shared / "4").unlink()
    (shared / "4").mkdir()
    reader = Reader()
    wanted = [Part(shared / f"{number}") for number in range(9)]
    answers = together(*(reader.part(files, part) for part in wanted))
    assert isinstance(answers[4], IsADirectoryError)
    del answers[4]
    assert answers == [b"%d" % number for number in range(9) if number != 4]


def test_a_connection_that_is_away_is_everybodys_error(shared: Path, files: CountedFiles) -> None:
    run = a_run(shared, files)
    files.transport.is_away = True
    reader = Reader()
    wanted = [reader.listing(run, 0), reader.part(files, Part(shared / "x"))]
    assert {type(answer) for answer in together(*wanted)} == {Unreachable}


# output over a connection


def look(relays: list[OutputRelay], server: Server, sizes: Sequence[int | None]) -> list[bool]:
    return together(
        *(
            relay.relay(server, size=size)  # type: ignore[arg-type]
            for relay, size in zip(relays, sizes, strict=True)
        )
    )


def test_output_of_many_jobs_takes_few_commands_and_none_when_nothing_is_new(
    shared: Path, files: CountedFiles
) -> None:
    reader, server = Reader(), Server()
    runs = [a_run(shared, files) for _ in range(20)]
    relays = [OutputRelay(run, 0, uuid4(), reader=reader) for run in runs]
    for run in runs:
        (run.path / "job.out").write_bytes(b"one\nhal")
    assert look(relays, server, [7] * 20) == [True] * 20
    assert len(server.logs) == 20
    assert files.commands <= 6  # relayed.json, outputs, what is sent, unfinished lines
    before = files.commands
    assert look(relays, server, [7] * 20) == [True] * 20
    assert files.commands == before
    for run in runs[:3]:
        (run.path / "job.out").write_bytes(b"one\nhalf\n")
    look(relays, server, [9] * 3 + [7] * 17)
    assert sorted(server.lines) == ["half"] * 3 + ["one"] * 20
    assert files.commands - before <= 3


def test_output_goes_on_from_the_same_place_when_the_connection_is_back(
    shared: Path, files: CountedFiles
) -> None:
    run, server = a_run(shared, files), Server()
    relay = OutputRelay(run, 0, uuid4())
    (run.path / "job.out").write_bytes(b"one\n")
    assert look([relay], server, [None]) == [True]
    (run.path / "job.out").write_bytes(b"one\ntwo\n")
    files.transport.is_away = True
    assert look([relay], server, [8]) == [False]
    files.transport.is_away = False
    assert look([relay], server, [8]) == [True]
    assert server.lines == ["one", "two"]


def test_another_process_sends_nothing_again_although_only_what_is_sent_is_noted(
    shared: Path, files: CountedFiles
) -> None:
    run, server = a_run(shared, files), Server()
    for printed in (b"one\n", b"one\ntwo\n", b"one\ntwo\n"):
        (run.path / "job.out").write_bytes(printed)
        assert look([OutputRelay(run, 0, FLOW_RUN)], server, [None]) == [True]
    assert server.lines == ["one", "two"]


def test_lines_that_are_left_out_are_not_fetched_to_be_counted(
    shared: Path, files: CountedFiles
) -> None:
    run, server = a_run(shared, files), Server()
    (run.path / "job.out").write_bytes(b"line\n" * 2_000_000)
    assert look([OutputRelay(run, 0, uuid4())], server, [None]) == [True]
    assert server.lines[0].startswith("... 9.9 MB left out here")
    assert set(server.lines[1:]) == {"line"}
    assert files.transport.bytes < 200_000
