"""Prints what the project and some of its extras depend on, a line each: `python dependencies.py train,serve`."""

import sys
import tomllib
from pathlib import Path


def dependencies(extras: list[str]) -> list[str]:
    """The requirements of the project with these extras, and what builds it."""
    file = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    found = [*file["build-system"]["requires"], *file["project"]["dependencies"]]
    for extra in extras:
        found += file["project"]["optional-dependencies"][extra]
    return list(dict.fromkeys(found))


if __name__ == "__main__":
    print("\n".join(dependencies([name for name in sys.argv[1].split(",") if name])))
