"""What a profile says against itself is told to who checks it, not to who uses it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpc_bridge.errors import SiteError
from hpc_bridge.sites.contradictions import contradictions
from hpc_bridge.sites.files import load_site, read_profile
from hpc_bridge.sites.profile import SiteProfile
from hpc_bridge.sites.template_check import prologue_problem
from tests.unit.site_folders import SiteFolders

PACKAGED = sorted((Path(__file__).parents[2] / "site_configs").glob("*.yaml"))


def profile(**parts: Any) -> SiteProfile:
    return SiteProfile.model_validate({"name": "hpc", "scheduler": {"type": "slurm"}, **parts})


def found(**parts: Any) -> list[str]:
    return [
        f"{'.'.join(map(str, location))}: {sentence}"
        for location, sentence in contradictions(profile(**parts))
    ]


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        (
            {
                "partitions": [{"name": "cpu"}, {"name": "gpu"}],
                "job_variables": {"partition": {"choices": ["cpu", "cpu,gpu", "x"]}},
            },
            "job_variables.partition.choices: 'x' is not offered",
        ),
        (
            {"accounts": ["lab"], "job_variables": {"account": {"choices": ["lab", "bio"]}}},
            "job_variables.account.choices: 'bio' is not offered",
        ),
        (
            {"qos": ["normal"], "job_variables": {"qos": {"choices": ["high"]}}},
            "job_variables.qos.choices: 'high' is not offered",
        ),
        (
            {"accounts": ["lab"], "partitions": [{"name": "a", "accounts": ["lab", "bio"]}]},
            "partitions.0.accounts: 'bio' is not in the list accounts of the site",
        ),
        (
            {"qos": ["normal"], "partitions": [{"name": "a"}, {"name": "b", "qos": ["high"]}]},
            "partitions.1.qos: 'high' is not in the list qos of the site",
        ),
        (
            {
                "partitions": [{"name": "a", "walltime": "1h"}, {"name": "b", "walltime": "2h"}],
                "job_variables": {"walltime": {"default": "1d"}},
            },
            "job_variables.walltime.default: 1d is above what every partition allows, at most"
            " 02:00:00",
        ),
        (
            {"paths": {"shared_dir": "/shared/{usr}"}},
            "paths.shared_dir: there is no placeholder {usr}; the only one is {user}",
        ),
        (
            {"paths": {"node_scratch": "${TMPDIR}/{user}/{job}"}},
            "paths.node_scratch: there is no placeholder {job}; the only one is {user}",
        ),
    ],
)
def test_a_contradiction_is_told_at_its_field(parts: dict[str, Any], problem: str) -> None:
    assert found(**parts) == [problem]


@pytest.mark.parametrize(
    "parts",
    [
        {"partitions": [{"name": "a", "accounts": ["lab"], "qos": ["high"]}]},
        {"job_variables": {"account": {"choices": ["lab"]}, "walltime": {"default": "9d"}}},
        {
            "partitions": [{"name": "a", "walltime": "1h"}, {"name": "b"}],
            "job_variables": {"walltime": {"default": "1d"}},
        },
        {"paths": {"shared_dir": "${SCRATCH}/{user}", "node_scratch": "$TMPDIR"}},
    ],
)
def test_what_is_not_known_judges_nothing(parts: dict[str, Any]) -> None:
    assert found(**parts) == []


def test_all_are_told_with_their_lines_and_none_keeps_a_site_from_loading(
    site_folders: SiteFolders,
) -> None:
    path = site_folders.write(
        site_folders.user,
        "hpc",
        "qos: [normal]\npartitions:\n- name: a\n  qos: [high]\n"
        "paths: {shared_dir: '/x/{usr}'}\nenvironment:\n  prologue: 'if'\n",
    )
    with pytest.raises(SiteError) as caught:
        read_profile(path)
    first, *lines = str(caught.value).splitlines()
    assert first == f"{path} cannot be used:"
    assert [" ".join(line.split()[:3]) for line in lines] == [
        "line 6: partitions.0.qos:",
        "line 7: paths.shared_dir:",
        "line 9: environment.prologue:",
    ]
    assert load_site("hpc").profile.qos[0].name == "normal"


@pytest.mark.parametrize("path", PACKAGED, ids=lambda path: path.stem)
def test_the_packaged_profiles_pass_all_checks(path: Path) -> None:
    assert read_profile(path).name == path.stem


# the prologue


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("echo a\nfi\n", "line 2: syntax error near unexpected token `fi'"),
        ("if true; then\n", "syntax error: unexpected end of file"),
        ("echo 'x\n", "unexpected EOF while looking for matching `''"),
        ("cat <<END\nx\n", "here-document at line 1 delimited by end-of-file"),
    ],
)
def test_a_prologue_that_bash_cannot_read(text: str, words: str) -> None:
    problem = prologue_problem(profile(environment={"prologue": text}))
    assert problem is not None
    assert problem.startswith("bash cannot read it: line ")
    assert words in problem


@pytest.mark.parametrize(
    "text", ["", "  \n", "export A=b\n", "shopt -s extglob\nls !(a)\n", "echo 'Gr\u00fc\u00dfe'\n"]
)
def test_a_prologue_that_bash_can_read(text: str) -> None:
    assert prologue_problem(profile(environment={"prologue": text})) is None


def test_nothing_of_a_prologue_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace, environment = tmp_path / "trace", tmp_path / "environment"
    environment.write_text(f"touch {trace}\n")
    monkeypatch.setenv("BASH_ENV", str(environment))
    assert prologue_problem(profile(environment={"prologue": f"touch {trace}"})) is None
    assert not trace.exists()


def test_without_bash_a_prologue_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert prologue_problem(profile(environment={"prologue": "fi"})) is None


def test_a_bash_that_does_not_get_to_read_judges_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bash = tmp_path / "bash"
    bash.write_text("#!/bin/sh\nexit 127\n")
    bash.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert prologue_problem(profile(environment={"prologue": "fi"})) is None
