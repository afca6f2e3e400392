"""Faults that nobody thought of: `python -m benchmarks.mutations --runs 1000 --seed N`.

Each run takes a copy of a finished tiny chain as it stood before some step, spoils one thing at random (bytes of an
artifact, a field of a document, a cell of a table, two partitions' files, the clock, or the step itself, which is
killed), lets the graph go on, restarts the model server and asks it. Verdicts:

    harmless           the endpoint answers with the same token ids as without the mutation
    stopped by name    a check or a step failed, and its words name what was spoiled or say what is wrong with it
    stopped unclearly  something failed with words that name neither
    SILENT             nothing failed, and the endpoint answers otherwise

Exit code 1 where a run was silent. `--only K` repeats run K of that seed and prints all that was said; `--timeline
FOLDER` keeps the chain (a minute and a half to build) for the next time.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.mutation_kinds import Mutation, spoil
from benchmarks.mutation_points import POINTS, Outcome, Runner, Timeline, as_json, build, fresh, stop_what_runs_in

VERDICTS = ("harmless", "stopped by name", "stopped unclearly", "SILENT")
UNCLEAR = (
    "KeyError",
    "IndexError",
    "AttributeError",
    "TypeError",
    "AssertionError",
    "UnicodeDecodeError",
    "JSONDecodeError",
)
"""How a message ends that was written by nobody."""


@dataclass(frozen=True)
class Verdict:
    """What came of run `number`."""

    number: int
    point: str
    mutation: Mutation
    verdict: str
    outcome: Outcome
    seconds: float

    def line(self) -> str:
        where = f" at {self.outcome.stopped_at}" if self.outcome.stopped_at else ""
        by = f" by {', '.join(self.outcome.reasons)}" if self.outcome.reasons else ""
        mutation = f"{self.mutation.kind} {self.mutation.place} ({self.mutation.what})"
        return f"{self.number:4} {self.verdict:17} before {self.point}: {mutation}{where}{by}  [{self.seconds:.0f} s]"


def judge(mutation: Mutation, outcome: Outcome, clean: list[list[int]]) -> str:
    """One of VERDICTS."""
    if outcome.answers is not None:
        return "harmless" if outcome.answers == clean else "SILENT"
    if outcome.crashed:
        return "stopped unclearly"
    # What a process failed with stands in its last line; those before it may be the trace that leads there.
    words = "\n".join(reason.strip().rpartition("\n")[2] for reason in outcome.reasons.values())
    if any(sign in words for sign in UNCLEAR) or not words.strip():
        return "stopped unclearly"
    # A check says under its own name what is wrong; a step that fails has to name the thing.
    named = any(name in words for name in mutation.names())
    by_check = any(name not in POINTS and name != "ServerError" for name in outcome.reasons)
    return "stopped by name" if named or by_check else "stopped unclearly"


def one_run(
    number: int,
    seed: int,
    runner: Runner,
    clean: list[list[int]],
    work: Path,
    where: tuple[str, str] | None = None,
) -> Verdict:
    """Run `number` of `seed`: what it spoils depends on these two and on the chain alone.

    `where` is a point and a kind of mutation that are not drawn, but given.
    """
    rng = random.Random(f"{seed}:{number}")
    begun = time.monotonic()
    point, kind = where or (rng.choice(POINTS), None)
    home = fresh(runner.timeline, point, work / str(number))
    mutation = spoil(home, point, rng, kind)
    try:
        outcome = runner.run(home, point, days_back=mutation.days_back, kill_after=mutation.kill_after)
    finally:
        stop_what_runs_in(home)
    found = Verdict(number, point, mutation, judge(mutation, outcome, clean), outcome, time.monotonic() - begun)
    shutil.rmtree(home.parent, ignore_errors=True)
    return found


def table(verdicts: list[Verdict]) -> str:
    """Verdicts by kind of mutation, and by the point where it was done."""
    lines = []
    for title, key in (("mutation", lambda v: v.mutation.kind), ("before", lambda v: v.point)):
        lines.append(f"{title:15}" + "".join(f"{name:>19}" for name in VERDICTS))
        counts = Counter((key(v), v.verdict) for v in verdicts)
        names = list(dict.fromkeys(sorted((key(v) for v in verdicts), key=_place)))
        lines += [f"{name:15}" + "".join(f"{counts[name, v]:19}" for v in VERDICTS) for name in names]
        lines.append("")
    total = Counter(v.verdict for v in verdicts)
    lines.append(f"{'all':15}" + "".join(f"{total[v]:19}" for v in VERDICTS))
    return "\n".join(lines)


def _place(name: str) -> tuple[int, str]:
    return (POINTS.index(name), name) if name in POINTS else (-1, name)


def clean_answers(runner: Runner, work: Path, points: tuple[str, ...] = ("restart",)) -> list[list[int]]:
    """Token ids that the chain answers with when nothing is spoiled; RuntimeError where it does not come to an end."""
    found = []
    for point in points:
        home = fresh(runner.timeline, point, work / f"clean-{point}")
        outcome = runner.run(home, point)
        stop_what_runs_in(home)
        if outcome.answers is None:
            raise RuntimeError(f"the chain that nothing was done to was stopped: {outcome}")
        found.append(outcome.answers)
    if any(answers != found[0] for answers in found):
        raise RuntimeError(f"the clean chain answers otherwise from another point of {points}: no run could be judged")
    return found[0]


def timeline(folder: Path) -> Timeline:
    """The chain in `folder`, which is built where it is not."""
    kept = folder / "tuned.txt"
    if kept.exists():
        return Timeline(folder, kept.read_text().strip())
    made = build(folder, lambda step: print(step, file=sys.stderr, flush=True))
    kept.write_text(made.tuned)
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="number of the first run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="repeat one run and print all that was said")
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--timeline", type=Path, help="folder that keeps the chain")
    parser.add_argument("--json", type=Path, help="file to append every run to, a line each")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.timeline or Path(temporary) / "timeline"
        folder.mkdir(parents=True, exist_ok=True)
        work = Path(temporary) / "work"
        runner = Runner(timeline(folder))
        clean = clean_answers(runner, work, ("restart", "dataset"))
        numbers = [options.only] if options.only is not None else range(options.first, options.first + options.runs)
        verdicts = []
        with ThreadPoolExecutor(options.at_once) as pool:
            for verdict in pool.map(lambda n: one_run(n, options.seed, runner, clean, work), numbers):
                verdicts.append(verdict)
                print(verdict.line(), flush=True)
                if options.only is not None:
                    print(*(f"{name}: {words}" for name, words in verdict.outcome.reasons.items()), sep="\n")
                if options.json:
                    with options.json.open("a", encoding="utf-8") as file:
                        reasons = verdict.outcome.reasons
                        file.write(as_json({"line": verdict.line(), "reasons": reasons}) + "\n")
        print(f"\nseed {options.seed}, runs {numbers[0]} to {numbers[-1]}\n{table(verdicts)}")
    return 1 if any(v.verdict == "SILENT" for v in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
