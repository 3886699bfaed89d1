"""YAML: what scalars mean, where they are, and what is refused before it can do harm."""

from __future__ import annotations

import time

import pytest

from hpc_bridge.sites.yaml_text import NotYaml, dump, load


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("1:30:00", "1:30:00"),
        ("12:00:00", "12:00:00"),
        ("on", "on"),
        ("NO", "NO"),
        ("2026-01-31", "2026-01-31"),
        ("012", "012"),
        ("0o7", "0o7"),
        ("1_000", "1_000"),
        ("true", True),
        ("False", False),
        ("12", 12),
        ("-3", -3),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("~", None),
        ("", None),
        ("'12'", "12"),
        ("!!str 12", "12"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(written: str, meant: object) -> None:
    found = load(f"key: {written}\n").content["key"]
    assert (found, type(found)) == (meant, type(meant))


@pytest.mark.parametrize(
    "value",
    [
        *(
            "on",
            "1e3",
            "1:30:00",
            "0o7",
            "024",
            "2026-01-31",
            "~",
            "",
            "null",
            "12",
            ".5",
            "<<",
            "=",
        ),
        *("a: b", "# no comment", "line\nline\n", "tab\tend ", "\x1b[8m", "\u202e", "ä", "- a"),
        *(True, 3, 1.5, 120.0, None),
    ],
)
def test_what_is_written_is_read_as_the_same(value: object) -> None:
    content = {"key": value, "list": [value, {"key": value}]}
    assert load(dump(content)).content == content


def test_a_text_of_several_lines_is_written_as_a_block() -> None:
    assert dump({"prologue": "a\nb\n"}) == "prologue: |\n  a\n  b\n"


def test_long_lines_stay_whole() -> None:
    assert dump({"key": "word " * 100}).count("\n") == 1


TEXT = """\
# comment
name: x
partitions:
  - name: cpu
    walltime: 1d
  - {name: gpu,
     walltime: 2d}
"""


@pytest.mark.parametrize(
    ("location", "line"),
    [
        ((), 2),
        (("name",), 2),
        (("partitions",), 3),
        (("partitions", 0), 4),
        (("partitions", 0, "walltime"), 5),
        (("partitions", 1, "walltime"), 7),
        (("partitions", 1, "nodes"), 6),
        (("partitions", 7), 3),
        (("nowhere",), 2),
    ],
)
def test_a_value_has_the_line_of_its_key_or_of_what_is_above(
    location: tuple[str | int, ...], line: int
) -> None:
    assert load(TEXT).line(location) == line


def test_every_repeated_key_is_told_with_both_lines() -> None:
    document = load("a: 1\nb: {c: 1, c: 2}\na: 2\n")
    assert sorted(document.problems) == [
        (2, "'c' is there twice, first at line 2"),
        (3, "'a' is there twice, first at line 1"),
    ]


def test_an_alias_repeats_no_key() -> None:
    document = load("- &a {name: x, walltime: 1d}\n- *a\n- {<<: *a, name: y}\n")
    assert document.problems == ()
    assert document.content[2] == {"name": "y", "walltime": "1d"}


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 30)
)
MERGED = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 30)
)


@pytest.mark.parametrize(
    ("text", "words", "line"),
    [
        (BOMB, "its aliases stand for too much; write it out", 5),
        (MERGED, "its aliases stand for too much; write it out", 6),
        ("a: 1\nb: &b [*b]\n", "an alias stands for something that holds itself", 2),
        ("a:\n " + "[" * 100_000, "is nested deeper than 40 levels", 2),
        ("a: [1,\nb: 2\n", "expected ',' or ']'", 3),
        ("a: 1\n\tb: 2\n", "cannot start any token", 2),
        ("a: b\x07c\n", "holds the character '.x07'", 1),
        ("a: 1\n---\nb: 2\n", "expected a single document", 2),
        ("a: !!python/object/apply:os.system [id]\n", "could not determine a constructor", 1),
        ("a: !!timestamp nonsense\n", "could not determine a constructor", 1),
        ("a: !!int x\n", "invalid literal", None),
        ("a: 1\n[1, 2]: 3\n", "unhashable key", 2),
    ],
    ids=["aliases", "merges", "cycle", "depth", "flow", "tab", "control", "two", *"abcd"],
)
def test_what_is_refused_at_once(text: str, words: str, line: int | None) -> None:
    started = time.monotonic()
    with pytest.raises(NotYaml, match=words) as caught:
        load(text)
    assert caught.value.line == line
    assert time.monotonic() - started < 10


def test_a_number_of_endless_digits_is_a_number_no_more() -> None:
    assert load(f"nodes: {'9' * 10_000}\n").content["nodes"] == float("inf")
