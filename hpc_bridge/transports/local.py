"""Commands and files of this machine."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import pwd
import shlex
import signal
import subprocess
import threading
from collections.abc import Sequence

from hpc_bridge.errors import CommandError, CommandTimeout
from hpc_bridge.transports.base import Completed, Files, Progress, Stdin
from hpc_bridge.transports.local_files import LocalFiles

# Where a site's Slurm lies; everything else of an outer allocation goes.
_KEPT = ("SLURM_CONF",)
_AFTER_KILL_SECONDS = 2.0


class LocalTransport(LocalFiles):
    """The machine that this process runs on, as the user who runs it."""

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: Stdin = b"",
        timeout: float,
        unset: Sequence[str] = (),
        files: Files | None = None,
        progress: Progress | None = None,
        may_log_in: bool = True,  # noqa: ARG002
    ) -> Completed:
        if files is not None:
            self.put(files, progress=progress)
        environment = {
            name: value
            for name, value in os.environ.items()
            if name in _KEPT or not any(fnmatch.fnmatchcase(name, pattern) for pattern in unset)
        }
        try:
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )
        except FileNotFoundError:
            return Completed(127, "", f"{argv[0]}: command not found")
        except OSError as error:  # no more processes or memory for this user, for instance
            raise CommandError(
                f"{argv[0]} cannot be started: {error.strerror}", command=argv, retryable=True
            ) from error
        errors: list[BaseException] = []
        try:
            stdout, stderr = process.communicate(_fed(process, stdin, errors), timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise CommandTimeout(
                f"no answer within {timeout:g} s from: {shlex.join(argv)}",
                command=argv,
                stderr=_last_words(process),
            ) from None
        if errors:
            raise errors[0]
        return Completed(process.returncode, _text(stdout), _text(stderr), stdout)

    def user(self) -> str:
        return pwd.getpwuid(os.getuid()).pw_name


def _fed(
    process: subprocess.Popen[bytes], stdin: Stdin, errors: list[BaseException]
) -> bytes | None:
    """What ``communicate`` is to send; chunks are sent by a thread instead, as they are made."""
    if isinstance(stdin, bytes):
        return stdin
    pipe, process.stdin = process.stdin, None

    def feed() -> None:
        # A command that has read enough closes its end.
        with contextlib.suppress(BrokenPipeError), pipe:  # type: ignore[union-attr]
            try:
                for chunk in stdin:
                    pipe.write(chunk)  # type: ignore[union-attr]
            except BrokenPipeError:
                raise
            except BaseException as error:  # noqa: BLE001 - raised by the thread that waits
                errors.append(error)

    threading.Thread(target=feed, daemon=True).start()
    return None


def _last_words(process: subprocess.Popen[bytes]) -> str:
    """What a killed command still says; one that hangs in the kernel says nothing."""
    try:
        return _text(process.communicate(timeout=_AFTER_KILL_SECONDS)[1])
    except subprocess.TimeoutExpired:
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        process.poll()
        return ""


def _text(output: bytes) -> str:
    return output.decode("utf-8", errors="replace")
