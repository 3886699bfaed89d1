"""Everything that can be wrong with a profile's file, and the words about it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpc_bridge.errors import SiteError
from hpc_bridge.sites.files import load_site, read_profile
from tests.unit.restrictions import as_nobody
from tests.unit.site_folders import SiteFolders


def problems(path: Path) -> list[str]:
    """Lines of the message after the one that names the file."""
    with pytest.raises(SiteError) as caught:
        read_profile(path)
    first, *rest = str(caught.value).splitlines()
    assert first == f"{path} cannot be used:"
    return [line.strip() for line in rest]


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    return tmp_path / "hpc.yaml"


HEAD = "name: hpc\nscheduler: {type: slurm}\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        # wrong types
        ("paths: work\n", "line 3: paths: should be 'name: value' lines, not 'work'"),
        ("partitions: cpu\n", "line 3: partitions: should be a list, not 'cpu'"),
        ("login:\n", "line 3: login: is empty; fill it in or leave it out"),
        ("contact: 112\n", 'line 3: contact: 112 is not text to YAML; quote it: "112"'),
        ("3: x\n", "line 3: 3: Keys should be strings, got 3"),
        (
            "retention: 3\n",
            "line 3: retention: 3 is not a time to keep; write '30d', '12h' or 'forever'",
        ),
        (
            "paths: {shared_dir: work}\n",
            "line 3: paths.shared_dir: 'work' is not absolute; begin it with /, ~ or an environment"
            " variable",
        ),
        (
            "accounts: [2024]\n",
            'line 3: accounts.0.name: 2024 is not text to YAML; quote it: "2024"',
        ),
        (
            "job_variables: {account: {default: 2024}}\n",
            'line 3: job_variables.account.default: 2024 is not text to YAML; quote it: "2024"',
        ),
        ("partitions: [7]\n", "line 3: partitions.0: should be 'name: value' lines, not 7"),
        # in plain words
        (
            "partitions: [{name: a, nodes: many}]\n",
            "line 3: partitions.0.nodes: 'many' is not a whole number",
        ),
        ("costs: {unit: E, node_hour: x}\n", "line 3: costs.node_hour: 'x' is not a number"),
        (
            "job_variables: {nodes: {default: many}}\n",
            "line 3: job_variables.nodes.default: 'many' is not a whole number",
        ),
        (
            "job_variables: {walltime: {default: long}}\n",
            "line 3: job_variables.walltime.default: 'long' is not a walltime; write '90m', '2h',"
            " '1d12h', '02:00:00' or '1-12:00:00'",
        ),
        (
            "partitions: [{name: a, walltime: long}]\n",
            "line 3: partitions.0.walltime: 'long' is not a walltime; write '90m', '2h', '1d12h',"
            " '02:00:00' or '1-12:00:00'",
        ),
        # unknown keys
        ("nmae: x\n", "line 3: nmae: there is no such key; did you mean 'name'?"),
        (
            "partitions:\n- name: a\n  waltime: 1d\n",
            "line 5: partitions.0.waltime: there is no such key; did you mean 'walltime'?",
        ),
        (
            "accounts: [{name: a, descriptoin: b}]\n",
            "line 3: accounts.0.descriptoin: there is no such key; did you mean 'description'?",
        ),
        (
            "job_variables: {walltime: {defualt: 1h}}\n",
            "line 3: job_variables.walltime.defualt: there is no such key; did you mean 'default'?",
        ),
        (
            "job_variables:\n  walltme: {default: 1h}\n",
            "line 4: job_variables.walltme: 'walltme' is not an option of a job;"
            " did you mean 'walltime'?",
        ),
        ("costs: {}\n", "line 3: costs.unit: is missing"),
        # what would only be refused when a job is submitted
        (
            "network: {api_url: 'prefect:4200'}\n",
            "line 3: network.api_url: 'prefect:4200' is not a web address; it begins with http://"
            " or https://",
        ),
        (
            "retention: 99999999999999d\n",
            "line 3: retention: '99999999999999d' is not a time to keep; write '30d', '12h' or"
            " 'forever'",
        ),
        # twice
        ("\nname: again\n", "line 4: 'name' is there twice, first at line 1"),
        (
            "partitions:\n- name: a\n- name: a\n",
            "line 3: partitions: 'a' is there twice",
        ),
        (
            "partitions: [{name: a, default: true}, {name: b, default: true}]\n",
            "line 3: partitions: a and b are all the default; keep one",
        ),
        # limits and defaults
        (
            "partitions: [{name: a, walltime: 1h, default_walltime: 2h}]\n",
            "line 3: partitions.0: default_walltime 02:00:00 is above walltime 01:00:00",
        ),
        (
            "job_variables: {memory: {default: 8G, maximum: 4G}}\n",
            "line 3: job_variables.memory: the default 8G is above the largest, 4G",
        ),
        (
            "job_variables: {partition: {default: b}}\npartitions: [{name: a}]\n",
            "line 3: job_variables.partition: the default 'b' is not offered",
        ),
        # templates
        (
            "environment: {template: nowhere.j2}\n",
            "line 3: environment.template: the template FOLDER/nowhere.j2 cannot be read: [Errno 2]"
            " No such file or directory: 'FOLDER/nowhere.j2'",
        ),
        (
            "environment:\n  template: |\n    #!/bin/sh\n    {{ spec.nods }}\n",
            "line 4: environment.template: line 2: 'types.SimpleNamespace object' has no attribute"
            " 'nods'",
        ),
        (
            "environment:\n  template: |\n    a\n    {% if spec.nodes %}{{ nope }}{% endif %}\n",
            "line 4: environment.template: line 2: 'nope' is undefined",
        ),
        (
            "environment:\n  template: |\n    a\n    {% if array %}{{ nope }}{% endif %}\n",
            "line 4: environment.template: line 2: 'nope' is undefined",
        ),
        (
            "environment:\n  template: |\n    a\n    {% if %}\n",
            "line 4: environment.template: line 2: Expected an expression, got 'end of statement"
            " block'",
        ),
        (
            "environment: {template: ~nobody-has-this-name/own.j2}\n",
            "line 3: environment.template: the template FOLDER/~nobody-has-this-name/own.j2 cannot"
            " be read: [Errno 2] No such file or directory:"
            " 'FOLDER/~nobody-has-this-name/own.j2'",
        ),
    ],
)
def test_one_problem_has_its_line_and_its_field(profile: Path, text: str, problem: str) -> None:
    profile.write_text(HEAD + text)
    assert problems(profile) == [problem.replace("FOLDER", str(profile.parent))]


def test_a_version_that_yaml_takes_for_a_number_is_to_be_quoted(profile: Path) -> None:
    profile.write_text("name: hpc\nscheduler:\n  type: slurm\n  version: 24.10\n")
    assert problems(profile) == [
        "line 4: scheduler.version: 24.1 is not text to YAML; put it in quotes"
    ]


def test_all_problems_are_told_in_the_order_of_the_file(profile: Path) -> None:
    profile.write_text(
        "nam: hpc\npartitions:\n  - walltime: 3 parsecs\n  - 7\n"
        "scheduler: {type: lsf}\ncontact: 1\n"
    )
    found = [line.partition(":")[0] for line in problems(profile)]
    assert found == ["line 1", "line 1", "line 3", "line 3", "line 4", "line 5", "line 6"]


def test_what_does_not_fit_together_is_told_all_at_once(profile: Path) -> None:
    profile.write_text(
        f"{HEAD}partitions: [{{name: a}}, {{name: a}}]\naccounts: [x, x]\n"
        "job_variables:\n  setup: {default: x}\n  nodes: {minimum: 3, maximum: 2}\n"
    )
    found = [line.split(": ")[:2] for line in problems(profile)]
    assert found == [
        ["line 3", "partitions"],
        ["line 4", "accounts"],
        ["line 6", "job_variables.setup"],
        ["line 7", "job_variables.nodes"],
    ]


def test_a_newer_format_is_no_list_of_unknown_keys(profile: Path) -> None:
    profile.write_text("name: hpc\nformat: 2\nscheduler: {type: quantum}\nqubits: 3\n")
    assert problems(profile) == [
        "line 2: format: 2 is newer than this version of hpc-bridge reads (1); upgrade hpc-bridge"
    ]


# files that are no profile at all


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", " is empty"),
        (b"# only a comment\n", " is empty"),
        (b"- a\n- b\n", ", line 1: is a list; a profile is made of 'name: value' lines"),
        (b"hello\n", ", line 1: is a single value; a profile is made of 'name: value' lines"),
        (b"\x7fELF\0\0", " is a binary file, not YAML"),
        ("name: x\n".encode("utf-16"), " is a binary file, not YAML"),
        (b"name: hpc\ncontact: caf\xe9\n", ", line 2: byte 0xe9 is not UTF-8; save it so"),
        (b"#" * 300_000, " is larger than 256 KiB; that is no site profile"),
        (b"name: x\n  bad: y\n", ", line 2: mapping values are not allowed here"),
        (b"login:\n\thost: x\n", ", line 2: a tab is no indentation to YAML; indent with spaces"),
        (b'name: x\ncontact: "a\\0"\n', ", line 2: holds the character '\\x00'"),
        (b'name: x\ncontact: "\\ud83d"\n', ", line 2: holds the character '\\ud83d'"),
    ],
    ids=[
        *("empty", "comment", "list", "scalar", "binary", "utf-16", "latin-1", "large", "yaml"),
        *("tab", "nul", "half a character"),
    ],
)
def test_a_file_that_is_no_profile(profile: Path, content: bytes, message: str) -> None:
    profile.write_bytes(content)
    with pytest.raises(SiteError) as caught:
        read_profile(profile)
    assert str(caught.value) == f"{profile}{message}"


def test_a_file_that_is_not_there(profile: Path) -> None:
    with pytest.raises(SiteError, match=r"hpc.yaml does not exist$"):
        read_profile(profile)


def test_a_link_to_nowhere(profile: Path) -> None:
    profile.symlink_to("/nowhere/hpc.yaml")
    with pytest.raises(SiteError, match=r"links to /nowhere/hpc.yaml, which does not exist"):
        read_profile(profile)


def test_a_link_to_itself(profile: Path) -> None:
    profile.symlink_to(profile)
    with pytest.raises(SiteError, match="cannot be read: Too many levels"):
        read_profile(profile)


def test_a_folder(profile: Path) -> None:
    profile.mkdir()
    with pytest.raises(SiteError, match="is a folder, not a file"):
        read_profile(profile)


@pytest.mark.timeout(20)
def test_a_named_pipe_is_not_waited_for(profile: Path) -> None:
    os.mkfifo(profile)
    with pytest.raises(SiteError, match="is not a plain file"):
        read_profile(profile)


def test_an_endless_device(profile: Path) -> None:
    profile.symlink_to("/dev/zero")
    with pytest.raises(SiteError, match="is not a plain file"):
        read_profile(profile)


def test_a_file_that_may_not_be_read(profile: Path) -> None:
    profile.write_text(HEAD)
    profile.chmod(0o000)
    with as_nobody(), pytest.raises(SiteError, match="cannot be read: Permission denied"):
        read_profile(profile)


# right ones


def test_a_byte_order_mark_is_no_character(profile: Path) -> None:
    profile.write_bytes(b"\xef\xbb\xbf" + HEAD.encode())
    assert read_profile(profile).name == "hpc"


def test_a_template_lies_beside_the_file(profile: Path) -> None:
    (profile.parent / "own.j2").write_text("#!/bin/sh\n{{ spec.name }}\n")
    profile.write_text(f"{HEAD}environment: {{template: own.j2}}\n")
    assert read_profile(profile).environment.template == str(profile.parent / "own.j2")


@pytest.mark.parametrize(
    ("part", "problem"),
    [
        ("commands: {squeue: []}", "squeue: holds nothing; give at least one, or leave it out"),
        ("commands: {sbtch: /opt/sbatch}", "'sbtch' is never called; did you mean sbatch?"),
        ("cluster: 'one,two'", "'one,two' is not one cluster; name one"),
    ],
)
def test_what_the_scheduler_cannot_follow(profile: Path, part: str, problem: str) -> None:
    profile.write_text(f"name: hpc\nscheduler:\n  type: slurm\n  {part}\n")
    [line] = problems(profile)
    assert line.replace("scheduler.commands.", "scheduler: commands: ").partition(": ")[2] == (
        f"scheduler: {part.partition(':')[0]}: {problem}"
    )


def test_the_file_is_named_after_the_site(site_folders: SiteFolders) -> None:
    path = site_folders.write(site_folders.user, "other")
    path.rename(path.with_name("hpc.yaml"))
    with pytest.raises(SiteError, match=r"line 1: name: 'other' is not .*rename it to other.yaml"):
        load_site("hpc")
