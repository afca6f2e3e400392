"""Writes the bill of materials of the environment that runs this, as CycloneDX 1.6 (`make sbom`)."""

import argparse
import hashlib
import json
import uuid
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name


def bill(distributions: list[metadata.Distribution]) -> dict[str, Any]:
    """The bill of these distributions, in the order of their names; the same for the same versions."""
    # One that is installed in place is found twice.
    by_ref = {_ref(found): found for found in distributions}
    ordered = [_component(by_ref[ref]) for ref in sorted(by_ref)]
    content = hashlib.sha256(json.dumps(ordered, sort_keys=True).encode()).hexdigest()
    ours = next((component for component in ordered if component["name"] == "llmops"), None)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, content)}",
        "version": 1,
        "metadata": {"component": ours} if ours else {},
        "components": [component for component in ordered if component is not ours],
        "dependencies": [
            {"ref": ref, "dependsOn": sorted(_needs(by_ref[ref]) & by_ref.keys())} for ref in sorted(by_ref)
        ],
    }


def _component(found: metadata.Distribution) -> dict[str, Any]:
    name, ref = canonicalize_name(found.metadata["Name"]), _ref(found)
    component: dict[str, Any] = {
        "type": "application" if name == "llmops" else "library",
        "bom-ref": ref,
        "name": name,
        "version": found.version,
        "purl": ref,
    }
    licence = found.metadata.get("License-Expression")
    if licence:
        component["licenses"] = [{"expression": licence}]
    elif (text := found.metadata.get("License")) and len(text) < 100:
        component["licenses"] = [{"license": {"name": text}}]
    record = found.read_text("RECORD")
    if record is not None:
        # What was installed, file by file with its hash, in one.
        component["properties"] = [{"name": "record:sha256", "value": hashlib.sha256(record.encode()).hexdigest()}]
    return component


def _ref(found: metadata.Distribution) -> str:
    return f"pkg:pypi/{canonicalize_name(found.metadata['Name'])}@{found.version}"


def _needs(found: metadata.Distribution) -> set[str]:
    from packaging.requirements import Requirement

    needed = set()
    for line in found.requires or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            try:
                needed.add(_ref(metadata.distribution(requirement.name)))
            except metadata.PackageNotFoundError:
                continue
    return needed


def main() -> None:
    """Write the bill to the file that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    a = parser.parse_args()
    a.file.parent.mkdir(parents=True, exist_ok=True)
    found = bill(list(metadata.distributions()))
    a.file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"{a.file}: {len(found['components'])} packages")


if __name__ == "__main__":
    main()
