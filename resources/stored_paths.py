"""Keeps every machine's path out of what is stored: a path is written by the root that it lies under, and a stored one
is resolved against the roots of this installation, so that a home can be moved, backed up and restored.
"""

import os
from pathlib import Path, PurePosixPath

ARTIFACTS = "artifacts"
HOME = "home"

_LAYOUT = {
    # The first folder of what the platform itself lays out, and how many parts name one thing in it.
    ARTIFACTS: {"models": 4, "reports": 3, "uploads": 2, "generated": 2, "answers": 2, "erasures": 2},
    HOME: {"mlflow-artifacts": 2, "servers": 2},
}
"""By this a path that an earlier version stored whole is found again when the home was moved since."""


class StoredPaths:
    """The roots of one installation: its home, and the artifact root (a folder or an fsspec URL).

    A path below the artifact root is stored as ``artifacts:models/…``, one below the home as ``home:servers/…``; any
    other (a model in a cache, a file of the user's) is stored as it is. Without a home there are no roots.
    """

    def __init__(self, home: Path | str | None, artifacts: Path | str | None = None) -> None:
        self.roots: dict[str, str] = {}
        self._spellings: list[tuple[str, str]] = []
        if home is None:
            return
        home = Path(home).expanduser().absolute()
        artifacts = str(home / "artifacts" if artifacts is None else artifacts)
        if "://" not in artifacts:
            artifacts = str(Path(artifacts).expanduser().absolute())
        # In this order: the artifact root lies in the home by default.
        self.roots = {ARTIFACTS: artifacts.rstrip("/"), HOME: str(home)}
        resolved = {name: os.path.realpath(root) for name, root in self.roots.items() if "://" not in root}
        self._spellings = [*self.roots.items(), *resolved.items()]

    def stored(self, path: str | os.PathLike[str]) -> str:
        """How a path is written down: by the root that it lies under, or as it is when it lies under none."""
        text = self.resolved(path)
        for name, root in self._spellings:
            if text == root:
                return f"{name}:"
            if text.startswith(f"{root}/"):
                return f"{name}:{text[len(root) + 1 :]}"
        return text

    def resolved(self, stored: str | os.PathLike[str]) -> str:
        """Where a stored path lies on this machine.

        A path that was stored whole, and whose root this installation is not, is looked for under the roots of today.
        """
        text = os.fspath(stored)
        name, colon, rest = text.partition(":")
        if colon and name in self.roots:
            return f"{self.roots[name]}/{rest}" if rest else self.roots[name]
        return self._moved(text) if text.startswith("/") else text

    def _moved(self, path: str) -> str:
        """The same file under a root of today, where the platform's own layout says which one it is."""
        if any(path == root or path.startswith(f"{root}/") for _, root in self._spellings):
            return path
        parts = PurePosixPath(path).parts
        for at in range(1, len(parts)):
            for name, root in self.roots.items():
                long_enough = len(parts) - at >= _LAYOUT[name].get(parts[at], len(parts))
                if long_enough and "://" not in root:
                    candidate = Path(root, *parts[at:])
                    if candidate.exists():
                        return str(candidate)
        return path
