"""The job script: what is rendered, how it is quoted, and what it does when it runs."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from hpc_bridge.errors import InvalidJobSpec, TemplateError
from hpc_bridge.jobs import JobSpec, Resources
from hpc_bridge.node.records import ExitRecord, read_exit_record
from hpc_bridge.schedulers.local_directives import split_directive
from hpc_bridge.script import directive, load_template, quote, render
from tests.waiting import until

CONTEXT = {
    "run_dir": "/shared/runs/hbabc",
    "output": "/shared/runs/hbabc/job.out",
    "python": "/env/bin/python",
    "setup": [],
}
ALWAYS = [
    "--job-name=hbabc",
    "--output=/shared/runs/hbabc/job.out",
    "--open-mode=append",
    "--chdir=/shared/runs/hbabc",
    "--export=NONE",
]
HOSTILE = [
    "a b",
    "it's",
    'say "x"',
    r"back\slash",
    "trailing\\",
    "# no comment",
    "a#b",
    "$HOME ${x} $(touch pwned) `touch pwned`",
    "; touch pwned; #",
    "'; touch pwned; '",
    '"; touch pwned; "',
    " leading and trailing ",
    "tab\there",
    "100% ümläut ✓",
    "--wrap=touch pwned",
    "{{ spec.name }}",
    "$(",
    "'",
    '"',
    "\\",
    "~",
]
BREAKS = list("\n\r\0\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029")


def rendered(
    values: dict[str, Any] | None = None, *, template: str | None = None, **context: Any
) -> str:
    spec = JobSpec(name="hbabc", **(values or {}))
    return render(spec, CONTEXT | context, packaged="slurm.sh.j2", template=template)


def words(script: str) -> list[str]:
    """All words of all directives, as sbatch cuts them."""
    lines = [line for line in script.splitlines() if line.startswith("#SBATCH")]
    return [word for line in lines for word in split_directive(line.removeprefix("#SBATCH"))]


# directives


def test_nothing_is_said_of_what_is_not_asked_for() -> None:
    assert words(rendered()) == ALWAYS


FIELDS: list[tuple[str, object, str]] = [
    ("partition", "gpu", "--partition=gpu"),
    ("account", "proj", "--account=proj"),
    ("qos", "high", "--qos=high"),
    ("reservation", "course", "--reservation=course"),
    ("constraint", "skylake&ib", "--constraint=skylake&ib"),
    ("nodes", 2, "--nodes=2"),
    ("tasks", 8, "--ntasks=8"),
    ("tasks_per_node", 4, "--ntasks-per-node=4"),
    ("cpus_per_task", 3, "--cpus-per-task=3"),
    ("memory", "16G", "--mem=16G"),
    ("memory_per_cpu", "1500M", "--mem-per-cpu=1500M"),
    ("gpus", 2, "--gpus=2"),
    ("gpus_per_node", "a100:2", "--gpus-per-node=a100:2"),
    ("walltime", "1d12h", "--time=1-12:00:00"),
    ("begin", "now+1hour", "--begin=now+1hour"),
    ("exclusive", True, "--exclusive"),
    ("licenses", "matlab:1", "--licenses=matlab:1"),
    ("nodelist", "c[1-2]", "--nodelist=c[1-2]"),
    ("exclude", "c3", "--exclude=c3"),
    ("dependency", "afterok:1234", "--dependency=afterok:1234"),
    ("requeue", True, "--requeue"),
    ("requeue", False, "--no-requeue"),
    ("warning", "SIGUSR1@120", "--signal=B:USR1@120"),
    ("comment", "train / eager-otter", "--comment=train / eager-otter"),
    ("directives", ["--mail-type=END"], "--mail-type=END"),
]


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


# the script as it runs


class Job:
    """A rendered script on disk with a stand-in for Python."""

    def __init__(
        self, folder: Path, supervisor: str = "exit 0", *, has_package: int = 0, **values: Any
    ) -> None:
        self.folder = folder / "it's $(touch pwned) ü"
        self.run_dir = self.folder / 'run "dir"'
        self.run_dir.mkdir(parents=True)
        self.python = self.folder / "py thon"
        # asked with -c whether it has the package
        answers = f'[ "$2" = -c ] && exit {has_package}'
        self.python.write_text(f"#!/bin/bash\n{answers}\n{supervisor}\n", encoding="utf-8")
        self.python.chmod(0o700)
        context = {"run_dir": self.run_dir, "output": self.run_dir / "job.out"}
        self.script = self.folder / "job.sh"
        self.script.write_text(
            rendered(values.pop("spec", {}), **context | {"python": str(self.python)} | values),
            encoding="utf-8",
        )
        self.environment = {"PATH": os.environ["PATH"], "SLURM_JOB_ID": "42"}

    @contextmanager
    def started(self, **variables: str) -> Iterator[subprocess.Popen[str]]:
        process = subprocess.Popen(
            ["bash", str(self.script)],
            cwd=self.folder,
            env=self.environment | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            try:
                yield process
            finally:
                if process.poll() is None:  # the test has failed
                    process.kill()

    def run(self, **variables: str) -> tuple[int, str, str]:
        with self.started(**variables) as process:
            stdout, stderr = process.communicate(timeout=20)
        assert not list(self.folder.rglob("pwned"))
        return process.returncode, stdout, stderr

    def claim(self, element: int = 0, attempt: int = 0) -> Path:
        return self.run_dir / str(element) / str(attempt)

    def record(self, element: int = 0, attempt: int = 0) -> ExitRecord:
        record = read_exit_record(self.claim(element, attempt) / "exit.json")
        assert record is not None
        return record


def test_the_supervisor_is_started_for_the_attempt(tmp_path: Path) -> None:
    job = Job(tmp_path, r'printf "%s\n" "$@"')
    code, stdout, stderr = job.run()
    assert (code, stderr) == (0, "")
    assert stdout.splitlines() == ["-P", "-m", "hpc_bridge.node", str(job.run_dir), "0", "0"]


def test_an_array_element_that_was_requeued_makes_its_own_claim(tmp_path: Path) -> None:
    job = Job(tmp_path, 'echo "$5 $6"')
    code, stdout, _ = job.run(SLURM_ARRAY_TASK_ID="3", SLURM_RESTART_COUNT="2")
    assert (code, stdout) == (0, "3 2\n")
    assert job.claim(3, 2).is_dir()


def test_a_claim_says_at_once_which_job_has_made_it(tmp_path: Path) -> None:
    job = Job(tmp_path, 'cat "$4/$5/$6/job"; exit 3')
    assert job.run()[1] == "42\n"
    assert job.record().job_id == "42"


def test_a_claim_of_an_arrays_element_names_it_as_squeue_does(tmp_path: Path) -> None:
    job = Job(tmp_path, "exit 3")
    job.run(SLURM_ARRAY_JOB_ID="40", SLURM_ARRAY_TASK_ID="2")
    assert (job.claim(2) / "job").read_text() == "40_2\n"
    assert job.record(2).job_id == "40_2"


def test_the_supervisor_learns_when_the_job_began(tmp_path: Path) -> None:
    before = int(time.time())
    code, stdout, _ = Job(tmp_path, 'echo "$HPC_BRIDGE_STARTED"').run()
    assert code == 0
    assert before <= int(stdout) <= time.time()


def test_the_claim_belongs_to_the_account_alone(tmp_path: Path) -> None:
    job = Job(tmp_path, "exit 3")
    job.run()
    modes = [path.stat().st_mode & 0o777 for path in (job.claim(), job.claim() / "exit.json")]
    assert modes == [0o700, 0o600]


def test_the_script_leaves_an_exit_record_when_the_supervisor_left_none(tmp_path: Path) -> None:
    job = Job(tmp_path, "exit 3")
    assert job.run()[0] == 3
    record = job.record()
    assert (record.format, record.job_id, record.stage, record.exit_code) == (1, "42", "python", 3)
    assert (record.cause, record.message) == ("", "")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", record.ended)
    assert sorted(path.name for path in job.claim().iterdir()) == ["exit.json", "job"]


def test_the_supervisors_own_record_stays(tmp_path: Path) -> None:
    job = Job(tmp_path, """echo '{"stage": "flow"}' > "$4/$5/$6/exit.json"; exit 3""")
    assert job.run()[0] == 3
    assert job.record() == ExitRecord(stage="flow")


def test_a_missing_python_is_said_in_the_exit_record(tmp_path: Path) -> None:
    python = '/no/such "py\\thon" it\'s\there'
    job = Job(tmp_path, python=python)
    code, _, stderr = job.run()
    record = job.record()
    assert (code, record.exit_code) == (127, 127)
    assert (record.stage, record.cause) == ("python", "PythonNotFound")
    assert python.replace("\t", " ") in record.message
    assert "set 'python' to an interpreter or environment" in record.message
    assert stderr.startswith("hpc-bridge: there is no Python at ")


def test_a_python_without_this_package_is_said_in_the_exit_record(tmp_path: Path) -> None:
    job = Job(tmp_path, "exit 1", has_package=1)
    code, _, stderr = job.run()
    record = job.record()
    assert (code, record.exit_code, record.stage) == (1, 1, "python")
    assert record.cause == "HPCBridgeMissing"
    assert f"{job.python} on " in record.message
    assert "has no hpc-bridge; install it there" in record.message
    assert "has no hpc-bridge" in stderr


def test_an_environments_folder_stands_for_its_python(tmp_path: Path) -> None:
    environment = tmp_path / "my env"
    (environment / "bin").mkdir(parents=True)
    job = Job(tmp_path, "exit 5", python=str(environment))
    shutil.move(job.python, environment / "bin" / "python")
    assert job.run()[0] == 5


def test_a_python_of_the_path_is_found(tmp_path: Path) -> None:
    job = Job(tmp_path, "exit 5", python="py thon")
    assert job.run(PATH=f"{job.folder}:{os.environ['PATH']}")[0] == 5


def test_setup_lines_prepare_the_supervisors_environment(tmp_path: Path) -> None:
    setup = ["set -eu", "export GREETING='hello world'"]
    job = Job(tmp_path, 'echo "$GREETING $SLURM_EXPORT_ENV"', setup=setup)
    assert job.run()[:2] == (0, "hello world ALL\n")


@pytest.mark.parametrize(
    ("setup", "code", "words"),
    [
        (["echo no such module >&2", "exit 4"], 4, "a setup line ended the job with exit code 4"),
        (["exit 0"], 0, "a setup line ended the job with exit code 0"),
        (["(exit 5)", "echo not reached"], 5, "a setup line failed: ( exit 5 )"),
        (["no-such-command 'a \"b\"'"], 127, "a setup line failed: no-such-command 'a \"b\"'"),
        (["set -eu", 'echo "$NO_SUCH_VARIABLE"'], 1, "a setup line ended the job"),
    ],
)
def test_a_setup_that_ends_the_job_is_named(
    tmp_path: Path, setup: list[str], code: int, words: str
) -> None:
    job = Job(tmp_path, "echo started", setup=setup)
    assert job.run()[:2] == (code, "")
    record = job.record()
    assert (record.stage, record.exit_code, record.cause) == ("setup", code, "SetupFailed")
    assert words in record.message


def test_what_a_setup_line_tries_may_fail(tmp_path: Path) -> None:
    setup = ["false || true", "if grep -q x /dev/null; then exit 1; fi"]
    assert Job(tmp_path, "exit 0", setup=setup).run()[0] == 0


def test_a_second_start_of_the_same_attempt_leaves_everything_alone(tmp_path: Path) -> None:
    job = Job(tmp_path, 'echo started >> "$4/starts"; exit 3')
    job.run()
    before = {path: path.read_bytes() for path in job.run_dir.rglob("*") if path.is_file()}
    code, _, stderr = job.run()
    assert code == 75
    assert "attempt 0 is claimed already" in stderr
    assert {path: path.read_bytes() for path in job.run_dir.rglob("*") if path.is_file()} == before


def test_two_starts_at_once_run_it_once(tmp_path: Path) -> None:
    job = Job(tmp_path, 'echo started >> "$4/starts"')
    with ExitStack() as stack:
        processes = [stack.enter_context(job.started()) for _ in range(4)]
        for process in processes:
            process.communicate(timeout=20)
    assert sorted(process.returncode for process in processes) == [0, 75, 75, 75]
    assert (job.run_dir / "starts").read_text() == "started\n"


def test_a_run_directory_that_is_gone_is_said(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.run_dir.rmdir()
    job.run_dir.write_text("a file\n")
    code, _, stderr = job.run()
    assert code == 75
    assert f"{job.run_dir} cannot be written; leaving" in stderr


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "USR1", "USR2"])
def test_a_signal_reaches_the_supervisor_whose_exit_code_is_the_jobs(
    tmp_path: Path, name: str
) -> None:
    # bash leaves INT ignored in what it starts in the background; the supervisor sets its own.
    waiting = (
        f"import signal, sys\n"
        f"signal.signal(signal.SIG{name}, lambda *_: sys.exit(7))\n"
        "print('ready', flush=True)\n"
        "signal.alarm(20)\n"
        "while True: signal.pause()\n"
    )
    job = Job(tmp_path, f"exec python3 -c {quote(waiting)}")
    with job.started() as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.Signals[f"SIG{name}"])
        process.communicate(timeout=20)
    assert process.returncode == 7
    assert job.record().exit_code == 7


def asleep(pid: int) -> bool:
    """Whether the process sleeps in a system call (proc(5), state S)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def test_a_signal_that_the_supervisor_survives_does_not_end_the_job(tmp_path: Path) -> None:
    waiting = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGUSR1, lambda *_: os.write(1, b'again\\n'))\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
        "print('ready', flush=True)\n"
        "signal.alarm(20)\n"
        "while True: signal.pause()\n"
    )
    job = Job(tmp_path, f"exec python3 -c {quote(waiting)}")
    with job.started() as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for _ in range(3):
            # Between two calls of `wait` bash keeps a signal until the next one.
            until(lambda: asleep(process.pid), 10, "bash waits")
            process.send_signal(signal.SIGUSR1)
            assert process.stdout.readline() == "again\n"
        process.terminate()
        process.communicate(timeout=20)
    assert process.returncode == 0


def test_a_supervisor_that_dies_of_a_signal_is_128_and_the_signal(tmp_path: Path) -> None:
    job = Job(tmp_path, "kill -KILL $$")
    assert job.run()[0] == 137
    assert job.record().exit_code == 137


PREPARE = ["echo ready", "until [ -e prepared ]; do read -rt 0.05 < <(:) || :; done"]


def test_a_termination_during_setup_ends_the_job_with_a_record(tmp_path: Path) -> None:
    job = Job(tmp_path, setup=PREPARE)
    with job.started() as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        process.communicate(timeout=20)
    assert process.returncode == 143
    record = job.record()
    assert (record.stage, record.exit_code, record.cause) == ("setup", 143, "")


@pytest.mark.parametrize("name", ["INT", "HUP", "USR1", "USR2"])
def test_another_signal_does_not_end_the_setup_and_is_kept(tmp_path: Path, name: str) -> None:
    """In a short job it is the warning before the walltime."""
    job = Job(tmp_path, 'echo "${@:7}"', setup=[*PREPARE, "echo prepared"])
    with job.started() as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.Signals[f"SIG{name}"])
        (job.folder / "prepared").touch()
        assert process.stdout.readline() == "prepared\n"
        assert process.stdout.readline() == f"{name}\n"
        process.communicate(timeout=20)
    assert (process.returncode, job.record().stage) == (0, "python")


FULL: dict[str, Any] = {
    field: value for field, value, _ in FIELDS if field not in ("memory_per_cpu", "gpus_per_node")
}


def test_hostile_text_runs_nowhere(tmp_path: Path) -> None:
    for number, hostile in enumerate(HOSTILE):
        spec = {"comment": hostile, "account": hostile}
        job = Job(tmp_path / str(number), 'echo "$4"', spec=spec)
        checked = subprocess.run(["bash", "-n", job.script], capture_output=True, text=True)
        assert (checked.returncode, checked.stderr) == (0, "")
        assert job.run()[:2] == (0, f"{job.run_dir}\n"), hostile


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("spec", [{}, FULL])
def test_shellcheck_has_nothing_to_say(tmp_path: Path, spec: dict[str, Any]) -> None:
    script = tmp_path / "job.sh"
    script.write_text(rendered(spec, setup=["module load cuda"]), encoding="utf-8")
    # It does not see that a trap calls a function, nor what lies in /etc/profile.
    command = ["shellcheck", "--shell=bash", "--norc", "--exclude=SC1091,SC2317", str(script)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_record_is_json_whatever_the_message_holds(tmp_path: Path) -> None:
    for number, python in enumerate(["/\\", '/"', "/\x01\x1f", "/ü✓", "/$x`y`", "/%s%n", "/a\nb"]):
        job = Job(tmp_path / str(number), python=python)
        assert job.run()[0] == 127
        stored = json.loads((job.claim() / "exit.json").read_text(encoding="utf-8"))
        assert stored["cause"] == "PythonNotFound"
