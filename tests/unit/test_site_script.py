"""What a site's profile adds to a job script, and takes from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from hpc_bridge.errors import InvalidJobSpec
from hpc_bridge.node.records import ExitRecord
from hpc_bridge.schedulers.slurm import SlurmScheduler
from hpc_bridge.script import path_on_node, with_site_directives
from hpc_bridge.sites.profile import SiteProfile
from hpc_bridge.sites.site import Site
from hpc_bridge.sites.user_part import UserPart
from hpc_bridge.workers.configuration import BatchJobConfiguration
from hpc_bridge.workers.submission import job_script
from tests.unit.rendered_scripts import HOSTILE, Job, rendered

SCRIPT = """\
#!/bin/bash
#SBATCH --job-name=hb1
#SBATCH --partition=gpu
#SBATCH --mem=16G
#SBATCH -t 10
#SBATCH --mail-type=END

#SBATCH is no directive here
"""


def lines(script: str) -> list[str]:
    return [line[8:] for line in script.splitlines() if line.startswith("#SBATCH -")]


def changed(skip: list[str] = [], add: list[str] = [], own: list[str] = []) -> list[str]:  # noqa: B006
    return lines(with_site_directives(SCRIPT, SlurmScheduler(), skip=skip, add=add, own=own))


ALL = lines(SCRIPT)


# directives


@pytest.mark.parametrize(
    ("skip", "gone"),
    [
        (["--mem"], "--mem=16G"),
        (["--time"], "-t 10"),
        (["-t"], "-t 10"),
        (["-p"], "--partition=gpu"),
        (["--mail-type"], "--mail-type=END"),
    ],
)
def test_an_option_is_left_out_in_whatever_form_it_is_there(skip: list[str], gone: str) -> None:
    assert changed(skip) == [line for line in ALL if line != gone]


def test_an_option_with_a_longer_name_stays() -> None:
    assert changed(["--mem-per-cpu", "--part", "--unknown-here"]) == [
        line for line in ALL if "partition" not in line
    ]


def test_what_is_added_comes_before_the_users_own() -> None:
    added = changed(add=["--wckey=flows", "--nice=3"], own=["--mail-type=END"])
    assert added == [*ALL[:-1], "--wckey=flows", "--nice=3", "--mail-type=END"]
    assert changed(add=["--wckey=flows"]) == [*ALL, "--wckey=flows"]


@pytest.mark.parametrize("add", ["--partition=cpu", "-p cpu", "--mail-type=ALL", "--time=1"])
def test_what_is_asked_for_already_is_not_added(add: str) -> None:
    assert changed(add=[add], own=["--mail-type=END"]) == ALL


def test_an_option_that_is_left_out_may_be_added_in_another_way() -> None:
    assert changed(["--mem"], ["--mem=0"]) == [line for line in ALL if "--mem=" not in line] + [
        "--mem=0"
    ]


def test_a_template_without_any_directive_gets_them_after_its_first_line() -> None:
    script = with_site_directives(
        "#!/bin/sh\ntrue\n", SlurmScheduler(), skip=[], add=["--nice"], own=[]
    )
    assert script == "#!/bin/sh\n#SBATCH --nice\ntrue\n"


def test_only_what_sbatch_reads_is_changed() -> None:
    head = "#!/bin/bash\n#SBATCH --job-name=hb1\n#SBATCH\t--mem=1G\n\n# a remark\n"
    rest = "cat > inner.sh <<END\n#SBATCH --mem=2G\n#SBATCH --wckey=inner\nEND\n"
    script = with_site_directives(
        head + rest, SlurmScheduler(), skip=["--mem"], add=["--wckey=site"], own=[]
    )
    assert script.removesuffix(rest).splitlines() == [
        *("#!/bin/bash", "#SBATCH --job-name=hb1", "#SBATCH --wckey=site", "", "# a remark")
    ]


def test_a_line_break_in_what_is_added_is_refused() -> None:
    with pytest.raises(InvalidJobSpec, match="line break"):
        changed(add=["--nice\u2028--wrap=x"])


@pytest.mark.parametrize(
    "options",
    [
        {"skip_directives": ["--job-name"]},
        {"skip_directives": ["-o"]},
        {"skip_directives": ["--export"]},
        {"add_directives": ["--output=/tmp/x"]},
        {"add_directives": ["--array=0-9"]},
        {"add_directives": ["--wckey=flows --export=BASH_ENV=/tmp/x"]},
        {"add_directives": ["--wckey=flows -o/tmp/x"]},
    ],
)
def test_what_hpc_bridge_rests_on_cannot_be_changed(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        SiteProfile.model_validate({"name": "a", "scheduler": {"type": "slurm", **options}})
    [field] = options
    assert f"{field}: " in str(caught.value)
    assert "is decided by hpc-bridge" in str(caught.value)


@pytest.mark.parametrize("line", ["--export-file=/tmp/x", "--nice --container /tmp/x"])
def test_no_file_that_nobody_has_accepted_decides_what_is_executed(line: str) -> None:
    with pytest.raises(ValidationError, match=r"add_directives: .* lets files decide"):
        SiteProfile.model_validate(
            {"name": "a", "scheduler": {"type": "slurm", "add_directives": line}}
        )


def test_a_jobs_script_is_that_of_its_site(shared: Path) -> None:
    profile = SiteProfile.model_validate(
        {
            "name": "alpha",
            "scheduler": {
                "type": "slurm",
                "skip_directives": "--mem",
                "add_directives": "--wckey=flows",
            },
            "paths": {"node_scratch": "/local/{user}/$SLURM_JOB_ID"},
            "environment": {"modules": ["python/3.12", "it's"], "prologue": "export A=$B\n"},
        }
    )
    configuration = BatchJobConfiguration(
        shared_dir=str(shared),
        memory="1G",
        setup=["echo mine"],
        directives=["--nice"],
    ).put_at(Site(profile, UserPart(user="anna")))
    script = job_script(configuration, configuration.spec("hb1", "comment"))
    assert lines(script)[-2:] == ["--wckey=flows", "--nice"]
    assert "--mem" not in script
    text = script.splitlines()
    order = [
        'export HPC_BRIDGE_SCRATCH=/local/anna/"${SLURM_JOB_ID-}"',
        "module load python/3.12",
        "module load 'it'\"'\"'s'",
        "export A=$B",
        "echo mine",
    ]
    assert [line for line in text if line in order] == order


# what runs on the node


def setting_up(folder: Path, **context: Any) -> tuple[ExitRecord | None, str]:
    """The record of a job that failed before Python, or what Python saw."""
    seen = folder / "seen"
    job = Job(folder, supervisor=f'env > "{seen}"', **context)
    job.run(HOME="/home/anna", BASH_ENV="")
    if seen.exists():
        return None, seen.read_text()
    return job.record(), ""


def test_modules_then_prologue_then_setup_reach_the_flow(tmp_path: Path) -> None:
    record, environment = setting_up(
        tmp_path,
        node_scratch="~/$NOWHERE/x",
        site_modules=["a b", "$(touch pwned)"],
        # Stands for what /etc/profile defines.
        site_prologue='ORDER="${ORDER}2 $HPC_BRIDGE_SCRATCH"\nexport ORDER',
        setup=['export ORDER="${ORDER}3"'],
    )
    assert record is not None  # there is no command "module" here
    assert "module load 'a b'" in record.message
    record, environment = setting_up(
        tmp_path / "again",
        node_scratch="~/$NOWHERE/x",
        site_prologue='ORDER="${ORDER}2 $HPC_BRIDGE_SCRATCH"\nexport ORDER',
        setup=['export ORDER="${ORDER}3"'],
    )
    assert record is None
    assert "ORDER=2 /home/anna//x3\n" in environment


@pytest.mark.parametrize(
    ("context", "words"),
    [
        ({"site_prologue": "true\nfalse\ntrue"}, "a setup line failed: false"),
        ({"site_prologue": "exit 0"}, "ended the job with exit code 0"),
        ({"site_modules": ["nowhere"]}, "a setup line failed: module load nowhere"),
        ({"site_prologue": "set -e", "setup": ["false"]}, "a setup line failed: false"),
    ],
)
def test_the_first_that_fails_ends_the_job(
    tmp_path: Path, context: dict[str, Any], words: str
) -> None:
    record, _ = setting_up(tmp_path, **context)
    assert record is not None
    assert record.cause == "SetupFailed"
    assert words in record.message


@pytest.mark.parametrize("value", HOSTILE)
def test_no_text_of_a_profile_but_the_prologue_is_executed(tmp_path: Path, value: str) -> None:
    # Job.run looks for what would have been left behind.
    setting_up(tmp_path, node_scratch=f"/local/{value}", site_modules=[value])


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("/local/a", "/local/a"),
        ("~", '"${HOME-}"'),
        ("~/x y", "\"${HOME-}\"'/x y'"),
        ("~anna/x", "'~anna/x'"),
        ("$TMPDIR", '"${TMPDIR-}"'),
        ("/l/${A}b$C-d", '/l/"${A-}"b"${C-}"-d'),
        ("/l/$(touch x)", "'/l/$(touch x)'"),
        ("/l/${A:-$(x)}", "'/l/${A:-$(x)}'"),
        ("/l/$1", "'/l/$1'"),
        ("/l/`x`", "'/l/`x`'"),
    ],
)
def test_a_path_is_expanded_by_the_node_and_by_nothing_else(path: str, word: str) -> None:
    assert path_on_node(path) == word


def test_a_script_without_a_site_is_as_before() -> None:
    assert rendered() == rendered(site_modules=[], site_prologue="", node_scratch=None)
    assert "HPC_BRIDGE_SCRATCH" not in rendered()
