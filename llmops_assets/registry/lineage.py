"""What a version was made from and with: tags by which it can be made again."""

import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from llmops_assets.records.datasets import SplitsRecord
from llmops_assets.specs.policy import Policy
from llmops_assets.specs.settings import Settings
from llmops_assets.specs.training import TrainJobSpec

_REPOSITORY = Path(__file__).parents[2]


def lineage(
    settings: Settings, policy: Policy, spec: TrainJobSpec, splits: SplitsRecord, image: str | None
) -> dict[str, str]:
    """Tags for the code, the image that trained and the manifests of the rows; the others are the caller's."""
    fixed = spec.image or f"{settings.image_registry}/{policy.images.train[spec.job_type]}"
    return {
        "code": code_version(),
        # The image that the policy names for this job; a child process runs the same worker without one.
        "image": image or f"none (subprocess); {fixed} runs the same worker",
        "manifests": ", ".join(f"{split}: {manifest}" for split, manifest in splits.manifests.items()),
    }


@cache
def code_version() -> str:
    """Version of the package, with the commit where it runs from a repository: ``0.1.0+3f2a91c.dirty``."""
    try:
        release = version("llmops")
    except PackageNotFoundError:
        release = "unknown"
    if not (_REPOSITORY / ".git").exists():
        return release
    commit = _git("rev-parse", "--short=12", "HEAD")
    if commit is None:
        return release
    return f"{release}+{commit}" + (".dirty" if _git("status", "--porcelain", "--untracked-files=no") else "")


def _git(*arguments: str) -> str | None:
    """What git says, or None where it is not installed or refuses."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=_REPOSITORY, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
