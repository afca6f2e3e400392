"""From reviewed answers to rows of a dataset: what may be learned from, and why the rest may not."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

import polars as pl

from resources.catalog.reviews import Review
from resources.traffic.context import Sent, sent_of

Kind = Literal["sft_pair", "rlhf_pair", "eval_suite"]
_BURST = timedelta(minutes=10)
_WINDOWS_TO_COMPARE = 6
_INSTRUCTIONS = ("system", "developer")


@dataclass(frozen=True)
class Decision:
    """What reviewers decided together: `open`, `waiting` for a second, `disputed`, or a verdict with its text."""

    state: Literal["open", "waiting", "disputed", "accept", "fix", "reject"]
    text: str | None = None

    @property
    def is_usable(self) -> bool:
        return self.state in ("accept", "fix")


@dataclass
class Built:
    """Rows of a dataset version, how many answers were left out by reason, and the users who look suspicious."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    bursts: list[str] = field(default_factory=list)
    brigades: list["Brigade"] = field(default_factory=list)


def decide(answer: Mapping[str, Any], reviews: Sequence[Review], quorum: int) -> Decision:
    """What `quorum` reviewers say of an answer. Who accepts takes the user's correction, or else the answer itself.

    They agree when they say the same, with the same text; one who differs makes it disputed, whatever the others say.
    """
    if not reviews:
        return Decision("open")
    usable = answer.get("correction") or answer.get("response")
    verdicts = {(r.verdict, (r.text or usable) if r.verdict != "reject" else None) for r in reviews}
    if len(verdicts) > 1:
        return Decision("disputed")
    if len(reviews) < quorum:
        return Decision("waiting")
    verdict, text = next(iter(verdicts))
    return Decision(verdict, text)  # pyrefly: ignore[bad-argument-type]


def build(
    kind: Kind,
    answers: Sequence[Mapping[str, Any]],
    decisions: Mapping[str, Decision],
    *,
    user_share: float,
    address_share: float = 1.0,
    known: Collection[str] = (),
) -> Built:
    """Rows of `kind` from the answers that reviewers decided on, oldest first.

    sft_pair: the question with the right answer. rlhf_pair: the right answer against what the model said, where a
    reviewer found another one right. eval_suite: confirmed failures, each with the right answer.
    A row has all that the model was sent: an answer says nothing without the turns before its question. Answers of
    those were not reviewed, and are not learned (weight 0). One user gives at most `user_share` of the rows (at least
    one), and one address `address_share`, where they come from more addresses than that allows for. A question that is
    in `known` (training and evaluation data, as `as_asked` writes it) or was taken already is left out, and one whose
    earlier turns are not on record, each with its reason.
    """
    built = Built(bursts=bursts(answers), brigades=brigades(answers))
    found: list[_Found] = []
    taken = set(known)
    for answer in answers:
        decision = decisions[answer["request_id"]]
        if not decision.is_usable or decision.text is None:
            built.left_out[f"review: {decision.state}"] += 1
            continue
        is_failure = normal(decision.text) != normal(answer["response"] or "")
        if kind != "sft_pair" and not is_failure:
            built.left_out["the answer was right"] += 1
            continue
        if not is_failure and answer.get("finish_reason") == "length":
            built.left_out["the answer was cut off at the limit of tokens"] += 1
            continue
        if kind == "rlhf_pair" and not answer["response"]:
            built.left_out["there was no answer to compare with"] += 1
            continue
        sent = sent_of(answer)
        if sent.missing is not None:
            built.left_out[f"what came before the question is not on record: {sent.missing}"] += 1
            continue
        question = as_asked((str(message["role"]), message.get("content")) for message in sent.messages)
        if question in taken:
            built.left_out["the question is known"] += 1
            continue
        taken.add(question)
        found.append(_Found(answer["user"], answer.get("origin"), _row(kind, answer, sent, decision.text)))
    of_user = _capped(found, lambda one: one.user, user_share)
    built.left_out[f"more than {user_share:.0%} of the rows from one user"] += len(found) - len(of_user)
    rows = of_user
    if len({one.origin for one in of_user} - {None}) > 1 / address_share:
        # Where all ask through one program there is one address, and it says nothing.
        rows = _capped(of_user, lambda one: one.origin, address_share)
    built.left_out[f"more than {address_share:.0%} of the rows from one address"] += len(of_user) - len(rows)
    built.rows = [one.row for one in rows]
    built.left_out = +built.left_out
    return built


@dataclass(frozen=True)
class _Found:
    user: str
    origin: str | None
    row: dict[str, Any]


def _capped(found: Sequence[_Found], whose: Callable[[_Found], str | None], share: float) -> list[_Found]:
    """The rows, oldest first, of which nobody's are more than a share; those of nobody known are let through."""
    counts = Counter(name for one in found if (name := whose(one)) is not None)
    most = _most_of_one([count for _, count in counts.most_common()], share)
    so_far: Counter[str] = Counter()
    kept = []
    for one in found:
        if (name := whose(one)) is not None:
            so_far[name] += 1
            if so_far[name] > most:
                continue
        kept.append(one)
    return kept


def _most_of_one(counts: Sequence[int], share: float) -> int:
    """The most rows of one user with which nobody has more than `share` of those that are left; 1 at least.

    What is left shrinks with what is cut, so a share of all that was found would let one user be most of it.
    """
    most = max(counts, default=1)
    while most > 1 and most > share * sum(min(count, most) for count in counts):
        most -= 1
    return most


def _row(kind: Kind, answer: Mapping[str, Any], sent: Sent, right: str) -> dict[str, Any]:
    row: dict[str, Any] = {"tools": list(sent.tools)} if sent.tools else {}
    row |= {name: answer[name] for name in ("request_id", "user")} | {"session": answer["session"] or answer["user"]}
    if kind == "rlhf_pair":
        chosen, rejected = ({"role": "assistant", "content": text} for text in (right, answer["response"]))
        return {"prompt": list(sent.messages), "chosen": [chosen], "rejected": [rejected], **row}
    before = [one | ({"weight": 0} if one["role"] == "assistant" else {}) for one in map(dict, sent.messages)]
    return {"messages": [*before, {"role": "assistant", "content": right}], **row}


def as_asked(messages: Iterable[tuple[str, str | None]]) -> str:
    """A conversation (role and content of each message) as duplicates of its question are found.

    Answers behind the last question, and instructions, make no other question of it; earlier turns do.
    """
    turns = [(role, text or "") for role, text in messages if role not in _INSTRUCTIONS]
    while turns and turns[-1][0] != "user":
        turns.pop()
    return normal("\n".join(f"{role}: {text}" for role, text in turns))


def asked_in(rows: pl.DataFrame, type: str) -> Iterator[str]:
    """What canonical rows of a dataset type ask, as `as_asked` writes it."""
    alone = {"pretrain_corpus": "text", "rag_qa": "question", "embedding_pair": "anchor"}.get(type)
    if alone is not None:
        yield from (as_asked([("user", text)]) for text in rows[alone])
        return
    for messages in rows["messages" if "messages" in rows.columns else "prompt"]:
        yield as_asked((one["role"], one["content"]) for one in messages)


def normal(text: str) -> str:
    """A text as duplicates of it are found: without case and without differences in white space."""
    return " ".join(text.casefold().split())


@dataclass(frozen=True)
class Brigade:
    """Many users who gave the same rating within a short time, and what would have been expected of them."""

    rating: int
    since: Any
    users: Sequence[str]
    expected: float


def brigades(answers: Sequence[Mapping[str, Any]], least: int = 10, alpha: float = 0.001) -> list[Brigade]:
    """Ten minutes in which far more users gave one rating than usual: many who agreed on it, or one with many names.

    A user counts once in a window. Windows begin at each rating; how many are to be expected is the rate over all other
    time, and a window is named when as many have a chance below alpha over the number of windows (Poisson; Bonferroni).
    With less than an hour of ratings none is. Those who agree need not ask much: `bursts` finds one who rates often,
    this finds many who rate once.
    """
    from scipy.stats import poisson

    times: dict[int, list[tuple[Any, str]]] = {}
    for answer in answers:
        if answer.get("rating") is not None:
            times.setdefault(answer["rating"], []).append((answer["rated_at"], answer["user"]))
    found = []
    for rating, given in sorted(times.items()):
        given.sort()
        span = (given[-1][0] - given[0][0]) / _BURST
        if span < _WINDOWS_TO_COMPARE:
            # Nobody knows yet what is usual here.
            continue
        end = 0
        for start, (since, _) in enumerate(given):
            end = max(end, start)
            while end < len(given) and given[end][0] - since <= _BURST:
                end += 1
            users = sorted({user for _, user in given[start:end]})
            others = len(given) - (end - start)
            expected = max(others, 1) / (span - 1)
            is_known = bool(found) and found[-1].rating == rating and since - found[-1].since <= _BURST
            if len(users) < least or is_known or poisson.sf(len(users) - 1, expected) >= alpha / len(given):
                continue
            found.append(Brigade(rating, since, users, expected))
    return found


def bursts(answers: Sequence[Mapping[str, Any]], least: int = 10) -> list[str]:
    """Users who gave `least` or more equal ratings within ten minutes: it may be one who wants to be learned from."""
    times: dict[tuple[str, int], list[Any]] = {}
    for answer in answers:
        if answer.get("rating") is not None:
            times.setdefault((answer["user"], answer["rating"]), []).append(answer["rated_at"])
    found = set()
    for (user, _), at in times.items():
        ordered = sorted(at)
        if any(last - first <= _BURST for first, last in zip(ordered, ordered[least - 1 :], strict=False)):
            found.add(user)
    return sorted(found)
