"""Job output on its way into a flow run's logs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES

from hpc_bridge.journal import RunDirectory, new_submission_id, prepare_shared_directory
from hpc_bridge.node.console import GUTTER
from hpc_bridge.storage import cluster_files
from hpc_bridge.tracking.lines import CHUNK_BYTES, ENTRY_CHARACTERS, LINES_PER_ENTRY
from hpc_bridge.tracking.output import LONGEST_BACKLOG, OutputRelay

FLOW_RUN = uuid4()
SENT_BY_THE_FLOW = "12:00:00.123 | INFO    | Flow run 'tidy-owl' - hello"


class Killed(BaseException):
    """Stands for kill -9."""


class Server:
    """What a server keeps of logs; ``before`` and ``after`` taking a batch something may happen."""

    def __init__(self) -> None:
        self.logs: list[Any] = []
        self.requests = 0
        self.before: BaseException | None = None
        self.after: BaseException | None = None

    async def create_logs(self, logs: Iterable[Any]) -> None:
        self.requests += 1
        assert PREFECT_CLIENT_MAX_RETRIES.value() == 0  # the client would send a batch again
        self._happens("before")
        self.logs += logs
        self._happens("after")

    async def read_logs(self, log_filter: Any, limit: int) -> list[Any]:
        after, before = log_filter.timestamp.after_, log_filter.timestamp.before_
        assert log_filter.flow_run_id.any_ == [FLOW_RUN]
        return [log for log in self.logs if after <= log.timestamp <= before][:limit]

    def _happens(self, when: str) -> None:
        trouble = getattr(self, when)
        setattr(self, when, None)
        if trouble is not None:
            raise trouble

    @property
    def lines(self) -> list[str]:
        return [line for log in self.logs for line in log.message.split("\n")]


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory.create(prepare_shared_directory(tmp_path / "s"), new_submission_id())
    run.write("job.out", b"")
    return run


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def a_relay(run: RunDirectory, clock: Clock | None = None, **options: Any) -> OutputRelay:
    return OutputRelay(run, 0, FLOW_RUN, clock=clock or Clock(), **options)


def relay(relay: OutputRelay, server: Server, *, final: bool = False) -> bool:
    return asyncio.run(relay.relay(server, final=final))  # type: ignore[arg-type]


def prints(run: RunDirectory, content: bytes) -> None:
    with run.output().open("ab") as file:
        file.write(content)


# what is sent


def test_lines_become_logs_of_the_flow_run(run: RunDirectory, server: Server) -> None:
    prints(run, b"loading modules\nready\n")
    assert relay(a_relay(run), server)
    [log] = server.logs
    assert (log.name, log.level, log.flow_run_id) == ("hpc_bridge.job", logging.INFO, FLOW_RUN)
    assert log.message == "loading modules\nready"


def test_each_call_sends_what_is_new(run: RunDirectory, server: Server) -> None:
    ours = a_relay(run)
    for line in (b"one\n", b"two\n", b"", b"three\n"):
        prints(run, line)
        relay(ours, server)
    assert server.lines == ["one", "two", "three"]
    assert server.requests == 3


def test_what_the_flow_sends_by_itself_is_left_out(run: RunDirectory, server: Server) -> None:
    text = f"before\n{SENT_BY_THE_FLOW}\n{GUTTER}its second line\nafter\n"
    prints(run, text.encode())
    relay(a_relay(run), server)
    assert server.lines == ["before", "after"]


def test_only_lines_of_the_flow_itself_cost_no_request(run: RunDirectory, server: Server) -> None:
    prints(run, f"{SENT_BY_THE_FLOW}\n".encode() * 20_000)
    assert relay(a_relay(run), server)
    assert server.requests == 0


def test_an_unfinished_line_waits_for_its_end(run: RunDirectory, server: Server) -> None:
    ours = a_relay(run)
    prints(run, b"half a")
    relay(ours, server)
    assert server.lines == []
    prints(run, b" line\n")
    relay(ours, server)
    assert server.lines == ["half a line"]


def test_the_last_call_sends_an_unfinished_line_too(run: RunDirectory, server: Server) -> None:
    ours = a_relay(run)
    prints(run, b"one\nslurmstepd: error: *** JOB 5 CANCELLED DUE TO TIME LIMIT ***")
    assert relay(ours, server, final=True)
    assert server.lines[-1] == "slurmstepd: error: *** JOB 5 CANCELLED DUE TO TIME LIMIT ***"


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        (b"caf\xe9", "caf\ufffd"),
        ("Größe".encode(), "Größe"),
        (b"a\0b", "a\ufffdb"),
        (b"\x1b[31mred\x1b[0m", "red"),
        (b"\x1b]0;title\x07text", "text"),
        (b"0%\r50%\r100%", "100%"),
        (b"100%\r", "100%"),
        (b"dos\r\n", "dos"),
        (b"tab\tstays", "tab\tstays"),
        (b"bell\x07", "bell\ufffd"),
    ],
)
def test_any_byte_becomes_text(
    run: RunDirectory, server: Server, printed: bytes, expected: str
) -> None:
    prints(run, printed + b"\n")
    relay(a_relay(run), server)
    assert server.lines == [expected]


def test_times_strictly_increase_although_the_clock_stands(
    run: RunDirectory, server: Server
) -> None:
    noon = datetime(2026, 11, 21, 12, tzinfo=UTC)
    for _ in range(2):  # the second one is another process
        prints(run, b"line\n" * (LINES_PER_ENTRY * 3))
        relay(a_relay(run, now=lambda: noon), server)
    times = [log.timestamp for log in server.logs]
    assert len(times) == len(set(times)) == 6
    assert times == sorted(times)
    assert times[-1] - noon < timedelta(seconds=1)


def test_a_long_line_is_cut(run: RunDirectory, server: Server) -> None:
    prints(run, b"x" * (ENTRY_CHARACTERS + 1234) + b"\nnext\n")
    relay(a_relay(run), server)
    assert server.lines == ["x" * ENTRY_CHARACTERS + " ... (1,234 more characters)", "next"]


def test_no_output_file_is_no_output(run: RunDirectory, server: Server) -> None:
    run.output().unlink()
    assert relay(a_relay(run), server)
    assert server.requests == 0


def test_a_file_that_was_cut_starts_anew_with_a_note(run: RunDirectory, server: Server) -> None:
    ours = a_relay(run)
    prints(run, b"the first output, which is long\n")
    relay(ours, server)
    run.output().write_bytes(b"new\n")
    relay(ours, server)
    assert server.lines[1:] == ["... the output file was cut or replaced; from its start:", "new"]


# nothing lost, nothing doubled


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("trouble", [Killed(), httpx.ReadTimeout("no answer")])
def test_a_batch_whose_answer_is_lost_comes_once(
    run: RunDirectory, server: Server, when: str, trouble: BaseException
) -> None:
    ours = a_relay(run)
    prints(run, b"zero\n")
    relay(ours, server)
    prints(run, b"one\ntwo\n")
    setattr(server, when, trouble)
    if isinstance(trouble, Killed):
        with pytest.raises(Killed):
            relay(ours, server)
        ours = a_relay(run)
    else:
        assert not relay(ours, server)
    prints(run, b"three\n")
    assert relay(ours, server)
    assert server.lines == ["zero", "one", "two", "three"]


def test_another_process_goes_on_where_the_last_one_stopped(
    run: RunDirectory, server: Server
) -> None:
    for line in (b"one\n", b"two\n"):
        prints(run, line)
        relay(a_relay(run), server)
    assert server.lines == ["one", "two"]


def test_an_outage_of_the_server_loses_nothing(run: RunDirectory, server: Server) -> None:
    ours = a_relay(run)
    for number in range(5):
        prints(run, f"{number}\n".encode())
        server.before = httpx.ConnectError("refused")
        assert not relay(ours, server)
    assert relay(ours, server)
    assert server.lines == ["0", "1", "2", "3", "4"]


def test_what_the_server_refuses_does_not_hold_up_the_rest(
    run: RunDirectory, server: Server
) -> None:
    ours = a_relay(run)
    prints(run, b"refused\n")
    request = httpx.Request("POST", "http://x/logs/")
    response = httpx.Response(413, request=request)
    server.before = httpx.HTTPStatusError("too large", request=request, response=response)
    relay(ours, server)
    prints(run, b"next\n")
    relay(ours, server)
    assert server.lines == ["next"]


def test_a_position_that_cannot_be_kept_is_said_once(
    run: RunDirectory,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    ours = a_relay(run)
    prints(run, b"one\n")
    with monkeypatch.context() as patch:
        patch.setattr(cluster_files, "write_private", full)
        assert not relay(ours, server)
        assert not relay(ours, server)
    assert server.requests == 0  # it could come twice
    assert [record.levelname for record in caplog.records].count("WARNING") == 1
    assert relay(ours, server)
    assert server.lines == ["one"]


# limits


def test_a_flood_is_held_to_its_rate(run: RunDirectory, server: Server, clock: Clock) -> None:
    ours = a_relay(run, clock, entries_per_second=1e9, bytes_per_second=1000)
    for _ in range(600):
        prints(run, b"some line of output\n" * 5000)
        relay(ours, server)
        clock.seconds += 1
    sent = sum(len(log.message) for log in server.logs)
    assert 500_000 < sent < (600 + 60) * 1000 + CHUNK_BYTES


def test_many_short_lines_are_held_to_their_rate_too(
    run: RunDirectory, server: Server, clock: Clock
) -> None:
    ours = a_relay(run, clock, entries_per_second=1, bytes_per_second=1e9)
    for _ in range(600):
        prints(run, b"x\n" * 20_000)
        relay(ours, server)
        clock.seconds += 1
    assert len(server.logs) < 600 + 60 + 300


def test_output_that_outruns_the_relay_is_left_out_with_a_note(
    run: RunDirectory, server: Server
) -> None:
    ours = a_relay(run)
    prints(run, b"first\n")
    relay(ours, server)
    lines = [f"line {number}" for number in range(LONGEST_BACKLOG // 5)]
    prints(run, "".join(f"{line}\n" for line in lines).encode())
    assert relay(ours, server)
    note, *newest = server.lines[1:]
    assert newest == lines[-len(newest) :]
    assert f"... {len(lines) - len(newest):,} lines, " in note
    assert f"hpc-bridge logs {FLOW_RUN}, or {run.output()}" in note


def test_a_huge_file_without_a_line_break_is_done_at_once(
    run: RunDirectory, server: Server
) -> None:
    with run.output().open("wb") as file:
        file.truncate(10 * 1000**3)
    assert relay(a_relay(run), server, final=True)
    assert "9,999.9 MB left out here" in server.lines[0]
    assert sum(len(log.message) for log in server.logs) < 100_000


def test_the_last_call_ends_whatever_there_is(run: RunDirectory, server: Server) -> None:
    ours = a_relay(run, entries_per_second=0.001)
    prints(run, b"x\n" * (LONGEST_BACKLOG // 2))
    assert relay(ours, server, final=True)
    assert server.lines[0] == "x"
    assert sum("left out here" in line for line in server.lines) == 1
    assert len(server.logs) < 3000
