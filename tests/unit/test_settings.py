"""Settings: variables before the user file, and errors that name what is wrong."""

from __future__ import annotations

import getpass
from datetime import timedelta
from pathlib import Path

import pytest

from hpc_bridge.errors import SettingsError
from hpc_bridge.settings import load_settings, user_file


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config.toml"
    path.touch()
    monkeypatch.setenv("HPC_BRIDGE_CONFIG", str(path))
    return path


# where they come from


def test_nothing_said_is_slurm_and_a_folder_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    settings = load_settings()
    assert settings.effective_scheduler == "slurm"
    assert settings.shared == Path("/home/me/.hpc-bridge")
    assert settings.job_variables() == {}


def test_the_user_file_is_read(config: Path) -> None:
    config.write_text('scheduler = "local"\nsetup = ["module load cuda"]\npoll_interval = 5\n')
    assert load_settings().job_variables() == {
        "scheduler": "local",
        "setup": ["module load cuda"],
        "poll_interval": 5.0,
    }


def test_a_variable_wins_over_the_user_file(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text('scheduler = "slurm"\nsite = "alpha"\n')
    monkeypatch.setenv("HPC_BRIDGE_SCHEDULER", "local")
    settings = load_settings()
    assert (settings.scheduler, settings.site) == ("local", "alpha")


@pytest.mark.parametrize("written", ["~/env", "$HOME/env", "${HOME}/env"])
def test_paths_stay_as_written_until_it_is_known_which_machines_they_are_of(
    monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("HPC_BRIDGE_PYTHON", written)
    monkeypatch.setenv("HPC_BRIDGE_SHARED_DIR", written)
    settings = load_settings()
    assert settings.job_variables() == {"python": written, "shared_dir": written}
    assert settings.shared == Path("/home/me/env")


def test_a_shared_directory_whose_variable_is_not_set_is_refused_at_its_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HPC_BRIDGE_SHARED_DIR", "$NO_SUCH_VARIABLE/hb")
    settings = load_settings()
    with pytest.raises(SettingsError, match=r"^shared_dir: '\$NO_SUCH_VARIABLE/hb' is not an abs"):
        _ = settings.shared


def test_an_empty_variable_says_nothing(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text('scheduler = "local"\n')
    monkeypatch.setenv("HPC_BRIDGE_SCHEDULER", "")
    assert load_settings().scheduler == "local"


def test_settings_are_those_of_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    for site in ("alpha", "beta"):
        monkeypatch.setenv("HPC_BRIDGE_SITE", site)
        assert load_settings().site == site


def test_the_user_file_lies_where_configuration_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HPC_BRIDGE_CONFIG")
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert user_file() == Path("/home/me/.config/hpc-bridge/config.toml")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/etc/me")
    assert user_file() == Path("/etc/me/hpc-bridge/config.toml")


def test_the_environment_alone_does_not_set_job_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPC_BRIDGE_NODES", "64")
    assert "nodes" not in load_settings().job_variables()


# the default pool


@pytest.mark.parametrize(
    ("variables", "pool"),
    [
        ({}, "slurm-{me}"),
        ({"HPC_BRIDGE_SCHEDULER": "local"}, "local-{me}"),
        ({"HPC_BRIDGE_SITE": "alpha"}, "alpha-{me}"),
        ({"HPC_BRIDGE_SITE": "alpha", "HPC_BRIDGE_SCHEDULER": "local"}, "alpha-{me}"),
        ({"HPC_BRIDGE_SITE": "alpha", "HPC_BRIDGE_WORK_POOL": "ours"}, "ours"),
    ],
)
def test_the_default_pool_is_personal(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], pool: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert load_settings().default_work_pool == pool.format(me=getpass.getuser())


# paths and lines


def test_a_path_may_begin_at_home_or_with_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("WORK", "/lustre/me")
    for written, path in {"~/hb": "/home/me/hb", "$WORK/hb": "/lustre/me/hb", "/hb": "/hb"}.items():
        monkeypatch.setenv("HPC_BRIDGE_SHARED_DIR", written)
        assert load_settings().shared == Path(path)


def test_setup_lines_may_be_one_text(config: Path) -> None:
    config.write_text('setup = """module load cuda\nulimit -n 4096"""\n')
    assert load_settings().setup == ["module load cuda", "ulimit -n 4096"]


@pytest.mark.parametrize(
    ("written", "lines"),
    [
        ("module load cuda", ["module load cuda"]),
        ("module load cuda\nulimit -n 4096", ["module load cuda", "ulimit -n 4096"]),
        ('["module load cuda"]', ["module load cuda"]),
    ],
)
def test_setup_lines_may_come_from_a_variable(
    monkeypatch: pytest.MonkeyPatch, written: str, lines: list[str]
) -> None:
    monkeypatch.setenv("HPC_BRIDGE_SETUP", written)
    assert load_settings().setup == lines


# refusals


def refusal() -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings()
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("scheduler", "sge", "'slurm', 'pbs' or 'local', got 'sge'"),
        ("scheduler", "Slurm", "'slurm', 'pbs' or 'local', got 'Slurm'"),
        ("shared_dir", "work/hb", "'work/hb' is not an absolute path"),
        ("shared_dir", "{user}/hb", "'{user}/hb' is not an absolute path"),
        ("api_url", "login1:4200/api", "'login1:4200/api' is not a web address"),
        ("api_url", "localhost", "it begins with http:// or https://"),
        ("api_url", "ftp://login1/api", "'ftp://login1/api' is not a web address"),
        ("poll_interval", "0", "greater than 0"),
        ("poll_interval", "-5", "greater than 0"),
        ("poll_interval", "often", "got 'often'"),
        ("site", "my site", "site: "),
        ("site", "-x", "site: "),
    ],
)
def test_a_wrong_variable_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(f"HPC_BRIDGE_{name.upper()}", value)
    message = refusal()
    assert message.startswith("wrong settings (HPC_BRIDGE_* variables, or ")
    assert f"\n{name}: " in message
    assert words in message


def test_a_wrong_value_in_the_user_file_is_refused_by_name(config: Path) -> None:
    config.write_text('scheduler = "sge"\npoll_interval = 0\n')
    message = refusal()
    assert str(config) in message
    assert "\nscheduler: " in message
    assert "\npoll_interval: " in message


@pytest.mark.parametrize(
    "content", [b"scheduler = ", b"[[[", b"scheduler: local\n", b"\xff\xfe", b"a = 1\na = 2\n"]
)
def test_a_broken_user_file_is_named(config: Path, content: bytes) -> None:
    config.write_bytes(content)
    assert refusal().startswith(f"the user file {config} cannot be read: ")


@pytest.mark.parametrize("url", ["http://login1:4200/api", "https://server.example/api"])
def test_a_web_address_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("HPC_BRIDGE_API_URL", url)
    assert load_settings().api_url == url


@pytest.mark.parametrize(
    "url", ["https://me:s3cret@server.example/api", "http://s3cret@server.example:4200/api"]
)
def test_a_web_address_with_a_password_is_refused_without_repeating_it(
    monkeypatch: pytest.MonkeyPatch, config: Path, url: str
) -> None:
    monkeypatch.setenv("HPC_BRIDGE_API_URL", url)
    message = refusal()
    assert "\napi_url: holds a user name or password; set PREFECT_API_AUTH_STRING" in message
    assert "s3cret" not in message
    monkeypatch.delenv("HPC_BRIDGE_API_URL")
    config.write_text(f'api_url = "{url}"\n')
    assert "s3cret" not in refusal()


def test_an_unknown_name_in_the_user_file_is_refused(config: Path) -> None:
    config.write_text('site = "alpha"\nshared_directory = "/scratch"\n')
    message = refusal()
    assert str(config) in message
    assert "'shared_directory' is not " in message
    assert "did you mean 'shared_dir'?" in message


def test_a_user_file_that_is_named_must_exist(config: Path) -> None:
    config.unlink()
    assert refusal() == f"HPC_BRIDGE_CONFIG names {config}, which does not exist"


def test_a_user_file_that_nobody_named_may_be_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HPC_BRIDGE_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert load_settings().job_variables() == {}


# retention


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (None, timedelta(days=30)),
        ("90d", timedelta(days=90)),
        ("12h", timedelta(hours=12)),
        ("forever", None),
    ],
)
def test_how_long_runs_are_kept(
    monkeypatch: pytest.MonkeyPatch, value: str | None, kept: timedelta | None
) -> None:
    if value is not None:
        monkeypatch.setenv("HPC_BRIDGE_RETENTION", value)
    assert load_settings().retention == kept


@pytest.mark.parametrize("value", ["30", "0", "0d", "never", "-3d", "a month", "9" * 14 + "d"])
def test_a_time_to_keep_that_could_be_misread_is_refused(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("HPC_BRIDGE_RETENTION", value)
    with pytest.raises(SettingsError, match="not a time to keep; write '30d', '12h' or 'forever'"):
        load_settings()
