"""The folders in which profiles are looked for, in a test's own folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MINIMAL = "name: {name}\nscheduler: {{type: slurm}}\n{rest}"


@dataclass(frozen=True)
class SiteFolders:
    system: Path
    """Stands for /etc/hpc-bridge/sites."""
    config: Path
    """The user's configuration folder."""

    @property
    def user(self) -> Path:
        return self.config / "sites"

    def write(self, folder: Path, name: str, rest: str = "") -> Path:
        """A small profile that is right, but for what ``rest`` adds."""
        return write(folder / f"{name}.yaml", MINIMAL.format(name=name, rest=rest))

    def write_own_part(self, name: str, text: str) -> Path:
        return write(self.config / "my-sites" / f"{name}.yaml", text)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path
