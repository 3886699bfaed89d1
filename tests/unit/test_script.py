"""The job script: what is rendered, and how it is quoted."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from hpc_bridge.errors import InvalidJobSpec, TemplateError
from hpc_bridge.jobs import JobSpec, Resources
from hpc_bridge.schedulers.local_directives import split_directive
from hpc_bridge.script import directive, load_template, quote, render
from tests.unit.rendered_scripts import CONTEXT, FIELDS, HOSTILE, rendered

ALWAYS = [
    "--job-name=hbabc",
    "--output=/shared/runs/hbabc/job.out",
    "--open-mode=append",
    "--chdir=/shared/runs/hbabc",
    "--export=NONE",
]
BREAKS = list("\n\r\0\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029")


def words(script: str) -> list[str]:
    """All words of all directives, as sbatch cuts them."""
    lines = [line for line in script.splitlines() if line.startswith("#SBATCH")]
    return [word for line in lines for word in split_directive(line.removeprefix("#SBATCH"))]


# directives


def test_nothing_is_said_of_what_is_not_asked_for() -> None:
    assert words(rendered()) == ALWAYS


@pytest.mark.parametrize(("field", "value", "word"), FIELDS)
def test_a_field_gives_its_directive_and_nothing_else(field: str, value: object, word: str) -> None:
    assert sorted(words(rendered({field: value}))) == sorted([*ALWAYS, word])


def test_every_field_has_a_directive() -> None:
    # The supervisor changes into the working directory, and knows what follows on the walltime.
    assert {field for field, _, _ in FIELDS} == set(Resources.model_fields) - {
        "working_directory",
        "on_walltime",
        "max_resubmissions",
    }


def test_directives_come_before_the_first_command() -> None:
    lines = rendered({"comment": "x", "directives": ["--nice"]}).splitlines()
    assert lines[0] == "#!/bin/bash"
    last = max(n for n, line in enumerate(lines) if line.startswith("#SBATCH"))
    assert all(line.startswith("#SBATCH") for line in lines[1 : last + 1])


def test_a_percent_in_the_output_path_is_no_pattern() -> None:
    assert "--output=/a%%j/job.out" in words(rendered(output="/a%j/job.out"))


def test_the_environment_is_not_in_the_script() -> None:
    assert "s3cret" not in rendered({"environment": {"TOKEN": "s3cret"}})


# quoting


@pytest.mark.parametrize("value", HOSTILE)
def test_a_quoted_word_is_read_back_byte_for_byte(value: str) -> None:
    assert split_directive(f" --comment={directive(value)} --nice") == [
        f"--comment={value}",
        "--nice",
    ]


def test_any_quoted_text_is_read_back_byte_for_byte() -> None:
    chance = random.Random(1)
    for _ in range(3000):
        value = "".join(
            chance.choices("ab \t'\"\\#$`%=;,~!&|<>()[]{}*?-ü", k=chance.randint(1, 12))
        )
        assert split_directive(f" --comment={directive(value)}") == [f"--comment={value}"], value


FREE_TEXT = [
    "partition", "account", "qos", "reservation", "constraint", "begin", "licenses", "nodelist",
    "exclude", "dependency", "comment",
]  # fmt: skip


@pytest.mark.parametrize("value", HOSTILE)
def test_no_text_adds_a_word_or_a_line(value: str) -> None:
    script = rendered(dict.fromkeys(FREE_TEXT, value))
    plain = rendered(dict.fromkeys(FREE_TEXT, "x"))
    assert len(script.splitlines()) == len(plain.splitlines())
    assert [word.removesuffix(value) for word in words(script)] == [
        word.removesuffix("x") for word in words(plain)
    ]


@pytest.mark.parametrize("field", ["memory", "memory_per_cpu", "walltime", "gpus", "warning"])
def test_what_has_a_form_takes_no_free_text(field: str) -> None:
    for value in HOSTILE:
        with pytest.raises(ValueError, match=field):
            JobSpec(name="hbabc", **{field: value})


@pytest.mark.parametrize("character", BREAKS, ids=ascii)
def test_a_line_break_is_refused_in_whatever_becomes_a_directive(character: str) -> None:
    text = f"a{character}#SBATCH --nodes=64"
    with pytest.raises(InvalidJobSpec, match="holds a line break"):
        directive(text)
    with pytest.raises(InvalidJobSpec, match="holds a line break"):
        rendered(output=f"/{text}")
    # as from a configuration, whose values have been checked before
    for field, value in (("comment", text), ("directives", [f"--nice{character}"])):
        spec = JobSpec.model_construct(**dict(JobSpec(name="hb")) | {field: value})
        with pytest.raises(InvalidJobSpec, match="holds a line break"):
            render(spec, CONTEXT, packaged="slurm.sh.j2")


@pytest.mark.parametrize("value", [*HOSTILE, "line\nbreak", ""])
def test_a_word_for_the_shell_is_read_back_byte_for_byte(value: str) -> None:
    script = f"printf '%s\\0' {quote(value)} end"
    done = subprocess.run(["bash", "-c", script], capture_output=True, check=True)
    assert done.stdout.decode().split("\0") == [value, "end", ""]


# templates


def test_a_template_may_be_given_as_text() -> None:
    script = rendered({"nodes": 2}, template="#!/bin/sh\n#SBATCH -N {{ spec.nodes | directive }}\n")
    assert script == "#!/bin/sh\n#SBATCH -N 2\n"


def test_a_template_may_be_given_as_a_path(tmp_path: Path) -> None:
    path = tmp_path / "own.j2"
    path.write_text("python={{ python | quote }}", encoding="utf-8")
    assert rendered(template=str(path), python="/my env/python") == "python='/my env/python'"


def test_no_template_is_the_packaged_one() -> None:
    assert load_template(None, "slurm.sh.j2") == load_template("", "slurm.sh.j2")
    assert load_template(None, "slurm.sh.j2")[0].endswith("/job_scripts/slurm.sh.j2")


def test_a_template_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing, binary = tmp_path / "missing.j2", tmp_path / "binary.j2"
    binary.write_bytes(b"\xff\xfe")
    for path in (missing, binary, tmp_path):
        with pytest.raises(TemplateError, match=f"the template {path} cannot be read"):
            rendered(template=str(path))


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("{{ modules }}", "'modules' is undefined"),
        ("{{ spec.wall_time }}", "has no attribute 'wall_time'"),
        ("{{ modules | quote }}", "'modules' is undefined"),
        ("{% for module in modules %}{% endfor %}", "'modules' is undefined"),
    ],
)
def test_an_undefined_variable_is_named_with_its_line(line: str, word: str) -> None:
    with pytest.raises(TemplateError, match="the pool's template, line 3: ") as caught:
        rendered(template=f"#!/bin/bash\n\n{line}\n")
    assert word in str(caught.value)


@pytest.mark.parametrize(
    "line", ["{% if %}", "{{ spec.name", "{{ 1 | nosuchfilter }}", "{% end %}"]
)
def test_a_syntax_error_is_named_with_its_line(line: str) -> None:
    with pytest.raises(TemplateError, match="the pool's template, line 2: "):
        rendered(template=f"#!/bin/bash\n{line}\n")


def test_an_error_in_a_file_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "own.j2"
    path.write_text("#!/bin/bash\n{{ nope }}\n", encoding="utf-8")
    with pytest.raises(TemplateError, match=f"{path}, line 2: 'nope' is undefined"):
        rendered(template=str(path))


@pytest.mark.parametrize(
    "line",
    [
        "{{ spec.__class__.__mro__ }}",
        "{{ spec.model_dump.__globals__ }}",
        "{{ spec.model_dump() }}",
        "{{ spec.environment }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ spec.__init__.__globals__['__builtins__'] }}",
        "{{ setup.append('touch pwned') }}",
        "{% include '/etc/passwd' %}",
    ],
)
def test_a_template_cannot_leave_its_sandbox(line: str) -> None:
    with pytest.raises(TemplateError, match="line 2: "):
        rendered(template=f"#!/bin/bash\n{line}\n")


@pytest.mark.parametrize(
    "line", ["{{ spec.nodes + 1 }}", "{{ 1 // 0 }}", "{% for i in range(999999999) %}{% endfor %}"]
)
def test_whatever_goes_wrong_in_a_template_is_named_with_its_line(line: str) -> None:
    with pytest.raises(TemplateError, match="the pool's template, line 2: "):
        rendered(template=f"#!/bin/bash\n{line}\n")
