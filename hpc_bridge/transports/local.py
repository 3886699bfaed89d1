"""Commands and files of this machine."""

from __future__ import annotations

import fnmatch
import os
import pwd
import shlex
import signal
import subprocess
from collections.abc import Sequence

from hpc_bridge.errors import CommandError, CommandTimeout
from hpc_bridge.transports.base import Completed, Transport

# Where a site's Slurm lies; everything else of an outer allocation goes.
_KEPT = ("SLURM_CONF",)
_AFTER_KILL_SECONDS = 2.0


class LocalTransport(Transport):
    """The machine that this process runs on, as the user who runs it."""

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout: float,
        unset: Sequence[str] = (),
    ) -> Completed:
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
        try:
            stdout, stderr = process.communicate(stdin, timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise CommandTimeout(
                f"no answer within {timeout:g} s from: {shlex.join(argv)}",
                command=argv,
                stderr=_last_words(process),
            ) from None
        return Completed(process.returncode, _text(stdout), _text(stderr))

    def user(self) -> str:
        return pwd.getpwuid(os.getuid()).pw_name


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
