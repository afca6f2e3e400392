"""The policy's table of role × action: as it is, and as policies of Cerbos that say the same."""

from collections.abc import Mapping
from pathlib import Path

import yaml

from llmops_assets.operations.errors import Refused
from llmops_assets.specs.access import ACTIONS, AccessPolicy
from llmops_assets.wiring import Wiring


def table(wiring: Wiring) -> list[tuple[str, dict[str, bool]]]:
    """Every action with who may do it, by role."""
    access = wiring.policy.access
    every = [f"{area}.{verb}" for area, verbs in ACTIONS.items() for verb in verbs]
    return [(action, {role: access.allows([role], action) for role in access.roles}) for action in every]


def decided_otherwise(wiring: Wiring) -> list[str]:
    """Roles for which Cerbos, where one is asked, decides otherwise than the policy's table; raises CerbosAway."""
    if wiring.cerbos is None:
        return []
    access = wiring.policy.access
    every = [f"{area}.{verb}" for area, verbs in ACTIONS.items() for verb in verbs]
    return [
        role for role in access.roles if wiring.cerbos.allowed("doctor", [role], every) != access.actions_of([role])
    ]


def cerbos_policies(access: AccessPolicy) -> Mapping[str, str]:
    """A resource policy of Cerbos an area, by file name. What no rule allows, Cerbos denies."""
    found: dict[str, str] = {}
    for area, verbs in ACTIONS.items():
        rules = []
        for verb in verbs:
            roles = [role for role in access.roles if access.allows([role], f"{area}.{verb}")]
            if roles:
                rules.append({"actions": [verb], "effect": "EFFECT_ALLOW", "roles": roles})
        policy = {"version": "default", "resource": area, "rules": rules}
        document = {"apiVersion": "api.cerbos.dev/v1", "resourcePolicy": policy}
        found[f"{area}.yaml"] = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    return found


def write_cerbos_policies(wiring: Wiring, folder: Path) -> list[Path]:
    """Write the policies into a folder; the files. Raises Refused for a folder with other policies in it."""
    policies = cerbos_policies(wiring.policy.access)
    folder.mkdir(parents=True, exist_ok=True)
    if others := sorted(path.name for path in folder.glob("*.y*ml") if path.name not in policies):
        raise Refused(f"{folder} holds {', '.join(others[:5])}, which would count too: name a folder of its own")
    for name, text in policies.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in policies]
