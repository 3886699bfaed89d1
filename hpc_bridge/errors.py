"""Every error that hpc-bridge raises on purpose.

HPCBridgeError
├── InvalidJobSpec              what was asked of a job cannot be asked (also a ValueError)
├── SettingsError               a setting or the user file is wrong (also a ValueError)
│   └── SiteError               a site profile is wrong, not known, not trusted or not accepted
├── TemplateError               a job script template does not render
├── CommandError                a command of the scheduler was refused or failed
│   ├── CommandNotFound         the command is not on PATH
│   ├── CommandTimeout          no answer in time: what it did is unknown
│   │   └── ConnectionLost      the connection broke meanwhile: what it did is unknown
│   ├── Unreachable             no connection to the login host now; nothing was run
│   ├── LoginRefused            the login host lets nobody in like this; nothing was run
│   │   ├── HostKeyUnknown      nothing vouches for the login host
│   │   └── HostKeyChanged      the login host is not the one that is known
│   ├── TransferFailed          files could not be written or read
│   │   └── NoSuchFile          there is no such file (also a FileNotFoundError)
│   ├── SubmissionRefused       the scheduler said no to the job
│   ├── TooManyJobs             the site allows no more live jobs now; a later try may work
│   └── SchedulerUnavailable    the scheduler does not answer; a later try may work
├── UnexpectedOutput            a scheduler said something that the parser does not know
├── SharedDirectoryError        the shared directory is missing, full or not writable
├── WorkPoolError               a pool has the wrong type or lacks what is needed
├── WorkerNameTaken             another worker of that name serves the pool
├── RunNotFound                 no job, or several, of that name or id
├── ServerUnreachable           the Prefect server does not answer
└── BundleError                 a flow, its parameters or its files cannot travel
    └── NotOwned                a bundle that belongs to somebody else
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class HPCBridgeError(Exception):
    """Root of the tree.

    ``retryable`` says whether the same call may succeed later without any change.
    """

    retryable: bool = False


class InvalidJobSpec(HPCBridgeError, ValueError):
    """A job request with a value that no scheduler could take."""


class SettingsError(HPCBridgeError, ValueError):
    """A setting that cannot be used."""


class SiteError(SettingsError):
    """A site profile that cannot be used; the message names the file and every wrong field."""


class TemplateError(HPCBridgeError):
    """A job script template that does not render; the message names variable and line."""


class CommandError(HPCBridgeError):
    """A scheduler command that did not do what it was asked.

    Carries ``command`` (argv), ``exit_code`` (None when it never ended) and the end of its
    ``stderr``.
    """

    kept_in: str | None = None
    """Where the result lies safely that could not be fetched, for people."""

    def __init__(
        self,
        message: str,
        *,
        command: Sequence[str] = (),
        exit_code: int | None = None,
        stderr: str = "",
        retryable: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.command = list(command)
        self.exit_code = exit_code
        self.stderr = stderr[-2000:]
        if retryable is not None:
            self.retryable = retryable


def is_worth_waiting_for(error: HPCBridgeError) -> bool:
    """Whether a command may succeed later although nobody changes what was asked.

    A login host that lets nobody in does again when a key, a certificate or a connection of the
    user's own is back.
    """
    return isinstance(error, CommandError) and (error.retryable or isinstance(error, LoginRefused))


class CommandNotFound(CommandError):
    """The scheduler's command is not installed or not on PATH."""


class CommandTimeout(CommandError):
    """The command gave no answer in time; whether it took effect is unknown."""

    retryable = True


class ConnectionLost(CommandTimeout):
    """The connection broke while a command was under way; whether it took effect is unknown."""


class Unreachable(CommandError):
    """There is no connection to the login host now, and so nothing was run."""

    retryable = True


class LoginRefused(CommandError):
    """The login host lets nobody in like this, or nobody could be asked; nothing was run."""


class HostKeyUnknown(LoginRefused):
    """No file of known hosts has a key of the login host."""


class HostKeyChanged(LoginRefused):
    """The login host shows another key than the one that is known for it."""


class TransferFailed(CommandError):
    """Files could not be written or read.

    Each that was there before is whole: as it was or, when the disk became full or the connection
    broke at the very end, as it was to be.
    """


class NoSuchFile(TransferFailed, FileNotFoundError):
    """There is no such file or folder."""


class SubmissionRefused(CommandError):
    """The scheduler refused the job; the message holds its own words."""


class TooManyJobs(CommandError):
    """As many jobs are live as the site's profile allows one user; nothing was submitted."""

    retryable = True


class SchedulerUnavailable(CommandError):
    """The scheduler's daemon does not answer."""

    retryable = True


class UnexpectedOutput(HPCBridgeError):
    """An answer that the parser does not know; never guessed at.

    ``readable`` holds what could be read of the same answer, so that one odd job hides no other.
    """

    def __init__(self, message: str, *, readable: Mapping[Any, Any] | None = None) -> None:
        super().__init__(message)
        self.readable: Mapping[Any, Any] = readable or {}


class SharedDirectoryError(HPCBridgeError):
    """The shared directory cannot hold what a job needs."""


class RunNotFound(HPCBridgeError):
    """A name or id that stands for no job of ours, or for several."""


class ServerUnreachable(HPCBridgeError):
    """The Prefect server does not answer; nothing has been submitted."""

    retryable = True


class WorkPoolError(HPCBridgeError):
    """A work pool of another type, or one that cannot be completed."""


class WorkerNameTaken(HPCBridgeError):
    """Another process serves the pool under the same worker name."""


class BundleError(HPCBridgeError):
    """A flow, its parameters or its included files cannot be packed or unpacked."""


class NotOwned(BundleError):
    """A bundle or folder that belongs to another account."""
