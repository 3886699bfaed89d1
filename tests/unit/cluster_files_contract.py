"""What a ClusterFiles promises, as cases that run over any of them.

Each takes ``there``, a folder on the cluster, and ``seen``, the same folder as the test sees it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpc_bridge.storage.cluster_files import ClusterFiles, Part
from hpc_bridge.transports.base import Files

ODD = ["a b", "it's", 'quo"te', "two\nlines", "-rf", "ü", os.fsdecode(b"\xff\xfe"), "$HOME", "*"]


@dataclass(frozen=True, slots=True)
class Place:
    """An empty folder on a cluster."""

    files: ClusterFiles
    folder: Path
    seen: Path
    """The same folder for the test itself."""


Case = Callable[[Place], None]


def any_bytes_come_back_in_pieces(at: Place) -> None:
    content = bytes(range(256)) * 40
    at.files.write(at.folder / "x", content)
    at.files.write(at.folder / "empty", b"")
    x = at.folder / "x"
    wanted = {
        Part(x): content,
        Part(x, 3): content[3:],
        Part(x, 0, 5): content[:5],
        Part(x, 255, 3): content[255:258],
        Part(x, 255, 0): b"",
        Part(x, len(content)): b"",
        Part(x, len(content) + 9, 9): b"",
        Part(x, -4): content[-4:],
        Part(x, -4, 2): content[-4:-2],
        Part(x, -(10**6), 2): content[:2],
        Part(x, -(10**6)): content,
        Part(at.folder / "empty"): b"",
        Part(at.folder / "empty", -9, 9): b"",
        Part(at.folder / "none"): None,
        Part(at.folder / "none", 2, 2): None,
        Part(at.folder / "no" / "folder"): None,
    }
    assert at.files.parts(list(wanted)) == list(wanted.values())
    assert at.files.parts([]) == []
    assert at.files.read(x) == content
    with pytest.raises(FileNotFoundError) as caught:
        at.files.read(at.folder / "none")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOENT, str(at.folder / "none"))


def odd_names_are_names(at: Place) -> None:
    at.files.put(Files(str(at.folder), {name: name.encode("utf-8", "replace") for name in ODD}))
    at.files.put(Files(str(at.folder / "two\nlines of '$HOME'"), {"x": b"1"}))
    assert sorted(at.files.listing(at.folder)) == sorted([*ODD, "two\nlines of '$HOME'"])
    assert at.files.parts([Part(at.folder / name) for name in ODD]) == [
        name.encode("utf-8", "replace") for name in ODD
    ]
    for name in ODD:
        assert at.files.read(at.folder / name) == name.encode("utf-8", "replace")
        at.files.link(at.folder / name, at.folder / f"{name}2")
        at.files.rename(at.folder / f"{name}2", at.folder / f"{name}3")
    at.files.touch(*(at.folder / f"{name}4" for name in ODD))
    known = at.files.listing(at.folder)
    assert {known[f"{name}3"].inode for name in ODD} == {known[name].inode for name in ODD}
    assert at.files.entry(at.folder / "two\nlines") is not None
    at.files.remove(*(at.folder / f"{name}{end}" for name in ODD for end in ("", "3", "4")))
    assert list(at.files.listing(at.folder)) == ["two\nlines of '$HOME'"]


def folders_are_listed_as_deep_as_asked(at: Place) -> None:
    at.files.put(Files(str(at.folder), {"a/b/c/d": b"1234", "a.b": b"", "z": b""}))
    (at.seen / "link").symlink_to("a")
    (at.seen / "nowhere").symlink_to("none")
    files = at.files
    names = ["a", "a.b", "link", "nowhere", "z"]
    assert list(files.listing(at.folder)) == names
    assert list(files.listing(at.folder, depth=3)) == ["a", "a/b", "a/b/c", *names[1:]]
    assert list(files.listing(at.folder, depth=9))[:4] == ["a", "a/b", "a/b/c", "a/b/c/d"]
    known = files.listing(at.folder)
    kinds = [known[name].kind for name in names]
    assert kinds == ["folder", "file", "link", "link", "file"]
    empty, none = at.folder / "empty", at.folder / "none"
    files.make_folder(empty)
    found = files.listings([none, empty, at.folder / "a", empty, at.folder / "link", none / "x"])
    assert [known and list(known) for known in found] == [None, {}, ["b"], {}, ["b"], None]
    assert files.listings([at.folder / "nowhere"]) == [None]
    assert files.listings([]) == []
    with pytest.raises(FileNotFoundError):
        files.listing(none)
    with pytest.raises(NotADirectoryError):
        files.listings([at.folder, at.folder / "z"])


def an_entry_says_what_the_file_server_knows(at: Place) -> None:
    at.files.put(Files(str(at.folder), {"x": b"12345"}, {"y": "x"}))
    (at.seen / "link").symlink_to("x")
    (at.seen / "nowhere").symlink_to("none")
    status = (at.seen / "x").stat()
    known = at.files.listing(at.folder)["x"]
    assert at.files.entry(at.folder / "x") == known == at.files.entry(at.folder / "link")
    assert (known.kind, known.size, known.mode, known.links) == ("file", 5, 0o600, 2)
    assert (known.uid, known.inode) == (at.files.account().uid, status.st_ino)
    assert known.modified == pytest.approx(status.st_mtime, abs=1e-5)
    folder = at.files.entry(at.folder)
    assert folder is not None
    assert (folder.kind, folder.mode) == ("folder", 0o700)
    names = ("x", "none", "link", "nowhere", "x/y", "none/x", "x")
    found = at.files.entries([at.folder / name for name in names])
    assert found == [known, None, known, None, None, None, known]
    assert at.files.entries([]) == []


def much_is_one_question(at: Place) -> None:
    names = [f"{number:04}" + "-" * 60 for number in range(2000)]
    few = {name: name.encode() for name in names[:100]}
    at.files.put(Files(str(at.folder), few, dict.fromkeys(names[100:], names[0])))
    assert list(at.files.listing(at.folder)) == names
    paths = [at.folder / name for name in names]
    assert at.files.parts([Part(path, 0, 4) for path in paths[:101]]) == [
        *(content[:4] for content in few.values()),
        b"0000",
    ]
    at.files.remove(*paths)
    assert at.files.parts([Part(path) for path in paths]) == [None] * 2000
    assert at.files.listings([*paths, at.folder]) == [None] * 2000 + [{}]


def files_appear_private_in_folders_that_are_made(at: Place) -> None:
    deep = at.folder / "new" / "er"
    at.files.put(Files(str(deep), {"sub/x": b"old"}))
    at.files.put(Files(str(deep), {"sub/x": b"new", "y": b""}))
    known = at.files.listing(at.folder, depth=9)
    assert {name: entry.mode for name, entry in known.items()} == {
        "new": 0o700,
        "new/er": 0o700,
        "new/er/sub": 0o700,
        "new/er/sub/x": 0o600,
        "new/er/y": 0o600,
    }
    assert at.files.read(deep / "sub/x") == b"new"


def links_are_second_names(at: Place) -> None:
    files = at.files
    files.put(Files(str(at.folder / "store"), {"a": b"1"}))
    links = {f"{number}/{'long' * 40}": "store/a" for number in range(300)}
    links |= {"new": "x", "absolute": f"{at.folder}/store/a", "kept": "x"}
    files.write(at.folder / "kept", b"kept")
    files.put(Files(str(at.folder), {"x": b"2"}, links))
    known = files.listing(at.folder, depth=2)
    assert known["store/a"].links == 302
    assert known["x"].inode == known["new"].inode
    assert files.read(at.folder / "kept") == b"kept"
    assert known["7"].mode == 0o700
    files.put(Files(str(at.folder / "run" / "1"), {}, {"up": "../../store/a", "more/up": "up"}))
    files.put(Files(str(at.folder / "run" / "1"), {}, {"up": "../../x"}))
    assert files.read(at.folder / "run/1/more/up") == b"1"
    with pytest.raises(FileNotFoundError):
        files.put(Files(str(at.folder), {}, {"broken": "store/none"}))
    assert files.entry(at.folder / "broken") is None
    files.put(Files(str(at.folder / "empty"), {}))


def a_link_is_taken_by_one(at: Place) -> None:
    at.files.put(Files(str(at.folder), {"a": b"1", "b": b"2"}))
    at.files.make_folder(at.folder / "folder")
    at.files.link(at.folder / "a", at.folder / "c")
    for taken in ("c", "folder", "b"):
        with pytest.raises(FileExistsError) as caught:
            at.files.link(at.folder / "a", at.folder / taken)
        assert caught.value.errno == errno.EEXIST
    assert at.files.read(at.folder / "c") == b"1"
    assert at.files.listing(at.folder / "folder") == {}
    with pytest.raises(FileNotFoundError):
        at.files.link(at.folder / "none", at.folder / "d")
    with pytest.raises(FileNotFoundError):
        at.files.link(at.folder / "a", at.folder / "none" / "d")
    with pytest.raises(PermissionError):
        at.files.link(at.folder / "folder", at.folder / "d")


def a_rename_replaces(at: Place) -> None:
    at.files.put(Files(str(at.folder), {"a": b"1", "b": b"2", "folder/x": b"3"}))
    at.files.rename(at.folder / "a", at.folder / "b")
    assert at.files.read(at.folder / "b") == b"1"
    with pytest.raises(FileNotFoundError):
        at.files.rename(at.folder / "a", at.folder / "b")
    with pytest.raises(IsADirectoryError):
        at.files.rename(at.folder / "b", at.folder / "folder")
    at.files.rename(at.folder / "folder", at.folder / "moved")
    assert list(at.files.listing(at.folder, depth=2)) == ["b", "moved", "moved/x"]


def folders_and_marks_are_made_once(at: Place) -> None:
    at.files.make_folder(at.folder / "new")
    at.files.make_folder(at.folder / "new")
    with pytest.raises(FileExistsError):
        at.files.make_folder(at.folder / "new", exist_ok=False)
    with pytest.raises(FileNotFoundError):
        at.files.make_folder(at.folder / "none" / "x")
    at.files.write(at.folder / "x", b"1")
    with pytest.raises(FileExistsError):
        at.files.make_folder(at.folder / "x")
    os.utime(at.seen / "x", (1, 1))
    at.files.touch(at.folder / "x", at.folder / "y")
    known = at.files.listing(at.folder)
    assert known["x"].modified > 1_000_000
    assert at.files.read(at.folder / "x") == b"1"
    assert (known["y"].mode, known["new"].mode) == (0o600, 0o700)
    with pytest.raises(FileNotFoundError):
        at.files.touch(at.folder / "none" / "x")
    at.files.touch()


def what_is_removed_is_gone(at: Place) -> None:
    at.files.put(Files(str(at.folder), {"x": b"1", "tree/a/b/c": b"2", "tree/kept": b""}))
    at.files.link(at.folder / "tree/kept", at.folder / "kept")
    (at.seen / "kept").chmod(0o400)
    at.files.put(Files(str(at.folder), {"other/y": b""}))
    (at.seen / "tree" / "outside").symlink_to("../other")
    for name in ("tree/a/b", "tree/a", "tree"):
        (at.seen / name).chmod(0o000 if name == "tree/a/b" else 0o500)
    at.files.remove(at.folder / "x", at.folder / "none")
    at.files.remove_trees(at.folder / "tree", at.folder / "none")
    known = at.files.listing(at.folder, depth=2)
    assert list(known) == ["kept", "other", "other/y"]
    assert known["kept"].mode == 0o400
    with pytest.raises(IsADirectoryError):
        at.files.remove(at.folder / "other")
    at.files.remove()
    at.files.remove_trees()


def what_is_not_allowed_is_a_permission_error(at: Place) -> None:
    files = at.files
    files.put(Files(str(at.folder), {"shut/x": b"1", "open/x": b"2"}))
    (at.seen / "open").chmod(0o500)
    (at.seen / "shut").chmod(0o000)
    shut, closed = at.folder / "shut", at.folder / "open"
    refused: list[Callable[[], object]] = [
        lambda: files.parts([Part(closed / "x"), Part(shut / "x")]),
        lambda: files.parts([Part(shut / "none", 2, 2)]),
        lambda: files.listings([closed, shut]),
        lambda: files.entry(shut / "x"),
        lambda: files.write(closed / "y", b""),
        lambda: files.put(Files(str(closed), {}, {"y": "x"})),
        lambda: files.make_folder(closed / "y"),
        lambda: files.touch(closed / "y"),
        lambda: files.link(closed / "x", closed / "y"),
        lambda: files.rename(closed / "x", closed / "y"),
        lambda: files.remove(closed / "x"),
    ]
    try:
        for call in refused:
            with pytest.raises(PermissionError) as caught:
                call()
            assert caught.value.errno == errno.EACCES
        # What a flow has shut below hides nothing else.
        assert list(files.listing(at.folder, depth=2)) == ["open", "open/x", "shut"]
    finally:
        (at.seen / "shut").chmod(0o700)
        (at.seen / "open").chmod(0o700)


def a_folder_is_no_file(at: Place) -> None:
    at.files.make_folder(at.folder / "sub")
    at.files.write(at.folder / "x", b"1")
    for part in (Part(at.folder / "sub"), Part(at.folder / "sub", 0, 9)):
        with pytest.raises(IsADirectoryError):
            at.files.parts([part])
    with pytest.raises(NotADirectoryError):
        at.files.write(at.folder / "x" / "y", b"")
    with pytest.raises(NotADirectoryError):
        at.files.parts([Part(at.folder / "x" / "y")])


def a_file_comes_here(at: Place) -> None:
    content = os.urandom(3 * 2**20)
    at.files.put(Files(str(at.folder), {"x": content, "small": b"1"}))
    assert at.files.read(at.folder / "x") == content
    with pytest.raises(FileNotFoundError) as caught:
        at.files.read(at.folder / "none")
    assert caught.value.filename == str(at.folder / "none")
    with pytest.raises(IsADirectoryError):
        at.files.read(at.folder)


CASES: list[Case] = [
    any_bytes_come_back_in_pieces,
    odd_names_are_names,
    folders_are_listed_as_deep_as_asked,
    an_entry_says_what_the_file_server_knows,
    much_is_one_question,
    files_appear_private_in_folders_that_are_made,
    links_are_second_names,
    a_link_is_taken_by_one,
    a_rename_replaces,
    folders_and_marks_are_made_once,
    what_is_removed_is_gone,
    a_file_comes_here,
    a_folder_is_no_file,
]
