"""The life of a model version: which step may follow which, and what each demands before it is taken."""

from dataclasses import dataclass, field
from typing import Literal

State = Literal["draft", "approved", "staging", "production", "archived"]
Action = Literal["approve", "stage", "promote", "archive"]

LEADS_TO: dict[Action, State] = {
    "approve": "approved",
    "stage": "staging",
    "promote": "production",
    "archive": "archived",
}
_MAY_FOLLOW: dict[Action, tuple[State, ...]] = {
    "approve": ("draft", "archived"),
    "stage": ("approved",),
    "promote": ("staging",),
    "archive": ("draft", "approved", "staging"),
}


@dataclass(frozen=True)
class TransitionEvidence:
    """All that a step is judged by.

    `gate` and `parity` are None where the question was never asked, else a pair of (passed, what was found). `erasure`
    says whose erasure touched the data of this version, None where none did. `was_staged` tells that it has been in
    staging before, so that a rollback needs no second round there. `served_on` are the endpoints that route to it.
    `changed` says what of it, its files or the registry's tags, is not as it was registered, and `approved` whether
    the audit log has its approval, whatever a tag or an alias says.
    """

    ref: str
    state: State
    evaluated: bool
    gate: tuple[bool, str] | None
    parity: tuple[bool, str] | None
    erasure: str | None = None
    was_staged: bool = False
    served_on: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    approved: bool = True


@dataclass(frozen=True)
class Refusal:
    """Why a step is not taken, and what to do about it."""

    why: str
    advice: str

    def __str__(self) -> str:
        return f"{self.why}. {self.advice}."


class NotAllowed(ValueError):
    """A step that may not be taken; the message holds every reason, each with what to do."""

    def __init__(self, action: Action, ref: str, refusals: list[Refusal]) -> None:
        self.refusals = refusals
        reasons = "\n".join(f"- {refusal}" for refusal in refusals)
        super().__init__(f"{ref} does not become {LEADS_TO[action]}:\n{reasons}")


@dataclass(frozen=True)
class Step:
    """A step that was judged: where it leads, and why not if it is refused."""

    action: Action
    ref: str
    to: State
    refusals: list[Refusal] = field(default_factory=list)

    def check(self) -> None:
        """Raise NotAllowed when anything speaks against it."""
        if self.refusals:
            raise NotAllowed(self.action, self.ref, self.refusals)


def judge(action: Action, evidence: TransitionEvidence) -> Step:
    """Hold `action` against where the version stands; every reason against it is given at once."""
    refusals = _order(action, evidence)
    if action != "archive":
        refusals += _evidence(action, evidence)
    return Step(action, evidence.ref, LEADS_TO[action], refusals)


def _order(action: Action, evidence: TransitionEvidence) -> list[Refusal]:
    ref, state = evidence.ref, evidence.state
    if state == LEADS_TO[action]:
        return [Refusal(f"{ref} is {state} already", "There is nothing to do")]
    if action == "archive" and (in_use := _in_use(evidence)):
        return in_use
    if state in _MAY_FOLLOW[action] or (action == "promote" and state == "approved" and evidence.was_staged):
        return []
    before = {"stage": f"llmops model approve {ref}", "promote": f"llmops model promote {ref} staging"}
    if state == "archived":
        return [Refusal(f"{ref} is archived", f"Approve it again first: llmops model approve {ref}")]
    if state == "draft":
        return [Refusal(f"{ref} is a draft", f"Have it approved first: llmops model approve {ref}")]
    if action in before and state == "approved":
        return [Refusal(f"{ref} has not been in staging", f"Try it there first: {before[action]}")]
    return [Refusal(f"{ref} is {state}, which does not lead to {LEADS_TO[action]}", "Archive it, or promote another")]


def _in_use(evidence: TransitionEvidence) -> list[Refusal]:
    """Why a version cannot be taken out of use: every reason, so that nobody meets the second after the first."""
    ref, reasons = evidence.ref, []
    if evidence.served_on:
        endpoints = ", ".join(evidence.served_on)
        verb = "serves" if len(evidence.served_on) == 1 else "serve"
        reasons.append(
            Refusal(f"{endpoints} {verb} {ref}", "Deploy another model there, or delete the endpoint, first")
        )
    if evidence.state == "production":
        reasons.append(Refusal(f"{ref} is in production", "Promote another version, which takes its place, first"))
    return reasons


def _evidence(action: Action, evidence: TransitionEvidence) -> list[Refusal]:
    refusals = []
    if not evidence.evaluated:
        refusals.append(
            Refusal(f"no evaluation of the weights of {evidence.ref} is on record", "Materialise `evaluation` for them")
        )
    elif evidence.gate is None or not evidence.gate[0]:
        reason = evidence.gate[1] if evidence.gate else "its gate was never asked"
        refusals.append(Refusal(f"its evaluation does not meet the gate: {reason}", "Train a better one"))
    refusals += [Refusal(change, "It stays where it is until that is put right") for change in evidence.changed]
    if action != "approve" and evidence.state not in ("draft", "archived") and not evidence.approved:
        refusals.append(
            Refusal(
                f"nobody approved {evidence.ref}: its tag or alias was set by hand",
                f"Have it approved: take the alias away, set its tag state to draft, then llmops model approve "
                f"{evidence.ref}",
            )
        )
    if evidence.erasure:
        refusals.append(
            Refusal(f"it was trained on data that was erased since: {evidence.erasure}", "Train it again without them")
        )
    if action == "promote":
        if evidence.parity is None:
            refusals.append(
                Refusal(
                    "nobody has asked whether it is served as it was evaluated",
                    f"Run llmops model parity {evidence.ref}",
                )
            )
        elif not evidence.parity[0]:
            refusals.append(
                Refusal(
                    f"it is not served as it was evaluated: {evidence.parity[1]}",
                    f"Mend the model's folder or the server, then run llmops model parity {evidence.ref}",
                )
            )
    return refusals
