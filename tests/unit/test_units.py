"""Memory and walltime as people write them."""

from __future__ import annotations

import random
import re
from datetime import timedelta

import pytest

from hpc_bridge.jobs.units import format_memory, format_walltime, parse_memory, parse_walltime
from hpc_bridge.schedulers.local_directives import read_memory, read_walltime

# memory


@pytest.mark.parametrize(
    ("written", "mebibytes"),
    [
        ("16G", 16384),
        ("16g", 16384),
        ("16GB", 16384),
        ("16GiB", 16384),
        (" 16 G ", 16384),
        ("1500M", 1500),
        ("1T", 1024 * 1024),
        ("1.5G", 1536),
        ("1.5 GiB", 1536),
        ("1024K", 1),
    ],
)
def test_memory_is_read_as_people_write_it(written: str, mebibytes: int) -> None:
    assert parse_memory(written) == mebibytes


@pytest.mark.parametrize(("written", "mebibytes"), [("1K", 1), ("1025K", 2), ("0.1G", 103)])
def test_memory_is_rounded_up_so_that_nobody_gets_less_than_asked(
    written: str, mebibytes: int
) -> None:
    assert parse_memory(written) == mebibytes


@pytest.mark.parametrize("written", ["16", 16, 16.5, "1500"])
def test_a_bare_number_of_memory_is_refused_because_schedulers_disagree_on_its_unit(
    written: object,
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(repr(written))} is not an amount of memory"):
        parse_memory(written)


@pytest.mark.parametrize(
    "written",
    [
        "banana",
        "",
        " ",
        "G",
        "-1G",
        "1,5G",
        "16 gigs",
        "16Gb/s",
        "1e3M",
        "16G 8G",
        True,
        None,
        b"1G",
    ],
)
def test_what_is_no_amount_of_memory_is_refused_and_shown(written: object) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(written))):
        parse_memory(written)


@pytest.mark.parametrize("written", ["0G", "0.0M", "0K"])
def test_no_memory_at_all_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="no memory at all"):
        parse_memory(written)


def test_a_refused_amount_of_memory_says_what_to_write() -> None:
    with pytest.raises(ValueError, match="write a number with K, M, G or T, like '1500M' or '16G'"):
        parse_memory("banana")


@pytest.mark.parametrize(
    ("mebibytes", "text"),
    [(1, "1M"), (1023, "1023M"), (1024, "1G"), (1536, "1536M"), (1024 * 1024, "1T")],
)
def test_memory_is_written_in_the_largest_exact_unit(mebibytes: int, text: str) -> None:
    assert format_memory(mebibytes) == text


def many_numbers(largest: int) -> list[int]:
    """Small ones, powers of two and their neighbours, and some by chance."""
    chance = random.Random(1)
    near = [2**power + step for power in range(2, largest.bit_length()) for step in (-1, 0, 1)]
    return [*range(1, 200), *near, *(chance.randint(1, largest) for _ in range(500))]


def test_every_amount_of_memory_survives_writing_and_reading() -> None:
    for mebibytes in many_numbers(2**24):
        text = format_memory(mebibytes)
        assert parse_memory(text) == mebibytes
        assert read_memory("mem", text) == mebibytes  # as sbatch reads it


# walltime


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("2h", 7200),
        ("90m", 5400),
        ("90M", 5400),
        ("30s", 30),
        ("1d", 86400),
        ("1d12h", 129600),
        ("1d 2h 3m 4s", 93784),
        (" 2 h ", 7200),
        ("02:00:00", 7200),
        ("100:00:00", 360000),
        ("1-12", 129600),
        ("1-12:30", 131400),
        ("1-12:30:15", 131415),
        (timedelta(hours=2), 7200),
        (timedelta(days=1, seconds=1), 86401),
    ],
)
def test_walltime_is_read_as_people_write_it(written: object, seconds: int) -> None:
    assert parse_walltime(written) == seconds


def test_a_fraction_of_a_second_is_rounded_up() -> None:
    assert parse_walltime(timedelta(milliseconds=1)) == 1
    assert parse_walltime(timedelta(seconds=90, microseconds=1)) == 91


@pytest.mark.parametrize("written", ["30", 30, 30.0, "120"])
def test_a_bare_number_of_walltime_is_refused_because_schedulers_disagree_on_its_unit(
    written: object,
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(repr(written))} is not a walltime"):
        parse_walltime(written)


@pytest.mark.parametrize("written", ["2:00", "05:00", "90:00"])
def test_a_clock_of_two_fields_is_refused_because_people_and_schedulers_read_it_differently(
    written: str,
) -> None:
    with pytest.raises(ValueError, match=f"^{written!r} is not a walltime; write .*'02:00:00'"):
        parse_walltime(written)


@pytest.mark.parametrize(
    "written",
    ["banana", "", "h", "1.5h", "-2h", "2 hours", "1w", "1h1h", "1:2:3:4", "1-2-3", True, None],
)
def test_what_is_no_walltime_is_refused_and_shown(written: object) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(repr(written))} is not a walltime; write "):
        parse_walltime(written)


@pytest.mark.parametrize(
    "written", ["0", "0h", "0d0h", "00:00", "00:00:00", "0-0", timedelta(0), timedelta(hours=-1)]
)
def test_a_walltime_that_leaves_no_time_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="leaves no time to run"):
        parse_walltime(written)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1, "00:00:01"), (5400, "01:30:00"), (86399, "23:59:59"), (129600, "1-12:00:00")],
)
def test_walltime_is_written_as_a_clock(seconds: int, text: str) -> None:
    assert format_walltime(seconds) == text


def test_every_walltime_survives_writing_and_reading() -> None:
    for seconds in many_numbers(400 * 86400):
        text = format_walltime(seconds)
        assert parse_walltime(text) == seconds
        assert read_walltime(text) == seconds  # as sbatch reads it
