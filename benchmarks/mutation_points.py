"""The chain that mutations spoil: its steps one by one, a copy of the home before each, and the way on from there."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

from benchmarks.chain import (
    CORPUS,
    DESK,
    ENDPOINT,
    POLICY,
    TOPICS,
    NotFinished,
    chats,
    deployment_spec,
    documents,
    pretrain_spec,
    questions,
    sft_spec,
)
from benchmarks.installation import Installation, Ran, copied, opened
from benchmarks.warm_worker import FIXED, WARM

OTHER = "other@v1"
"""A dataset version that teaches other answers: what is exchanged with the desk's has to come from somewhere."""

STEPS = (
    "dataset",
    "quality_report",
    "clean_dataset",
    "splits",
    "training_plan",
    "adapter",
    "merged_model",
    "evaluation",
    "registered_model",
    "deployment",
)
"""What is made one after the other, with a point before each; the last point is before a restart of the server."""

POINTS = (*STEPS, "restart")
SPLIT = {"stratify_by": "category", "ratios": [0.7, 0.1, 0.2]}
ASKED = [question for question, _ in questions(12, seed=77)]
"""What the served endpoint is asked in the end. Nothing was trained on these."""


@dataclass(frozen=True)
class Timeline:
    """Homes as they stood before each step, by point, and the partition that is trained."""

    folder: Path
    tuned: str

    def home(self, point: str) -> Path:
        return self.folder / point


@dataclass(frozen=True)
class Outcome:
    """How the graph went on: what the endpoint answered (token ids a question), or at which step what stopped it."""

    answers: list[list[int]] | None
    stopped_at: str | None
    reasons: dict[str, str]
    """What was said, by check or asset; a step's own exception stands under the asset's name."""
    crashed: bool = False
    """The way on itself raised: nobody was told by a check or a failed step."""


def _done(what: str, ran: Ran) -> Ran:
    if not ran.success or ran.failed:
        raise NotFinished(f"{what}: {ran.failed}")
    return ran


def build(folder: Path, progress: Callable[[str], None] = lambda _: None) -> Timeline:
    """Make the whole chain in `folder`, and keep the home as it was before each of its steps."""
    home = folder / "home"
    with opened(home, POLICY) as one:
        _done("corpus", one.ingest(CORPUS, "pretrain_corpus", documents(300)))
        base, ran = one.train(pretrain_spec())
        _done("base", ran)
        progress("the base model is trained")
        # The other desk answers each topic with the words of the next one.
        answers = [answer for _, answer in TOPICS.values()]
        turned = dict(zip(answers, [*answers[1:], answers[0]], strict=True))
        other = chats(360, seed=5)
        for row in other:
            row["messages"][1]["content"] = turned[row["messages"][1]["content"]]
        # In the order of their topics each would fit the question of the row beside it.
        random.Random(5).shuffle(other)
        _done("other", one.ingest(OTHER, "sft_pair", other, split=SPLIT))
        spec = sft_spec(base, OTHER) | {"output": {"artifact_name": "tiny-other"}}
        _done("the other desk", one.train(spec)[1])
        progress("the other desk is trained")
        one.register(DESK, "sft_pair", chats(360), split=SPLIT)
        tuned = one.request(sft_spec(base))
    timeline = Timeline(folder, tuned)
    for step in STEPS:
        copied(home, timeline.home(step))
        with opened(home) as one:
            _done(step, _make(one, timeline, step))
        progress(f"{step} is made")
    copied(home, timeline.home("restart"))
    return timeline


def _make(one: Installation, timeline: Timeline, step: str) -> Ran:
    if step == "deployment":
        return one.deploy(deployment_spec())
    return one.run(DESK if step in STEPS[:4] else timeline.tuned, step)


def go_on(one: Installation, timeline: Timeline, point: str) -> Outcome:
    """Take the home from `point` to the served endpoint as the platform would, and ask it."""
    for step in POINTS[POINTS.index(point) : -1]:
        ran = _make(one, timeline, step)
        if not ran.success or ran.failed:
            return Outcome(None, step, ran.failed)
    # A machine that comes up again: the servers of the last one are gone, and started by what the catalog says.
    one.w.servers.suspend()
    one.w.servers.reconcile()
    backends = one.w.catalog.backends(ENDPOINT)
    if not backends:
        return Outcome(None, "restart", {"restart": "no model server was started again"})
    try:
        one.w.servers.wait_healthy(backends[0])
        answers = [
            list(
                one.w.servers.complete(
                    backends[0], [{"role": "user", "content": question}], max_tokens=24, token_ids=True
                ).token_ids
            )
            for question in ASKED
        ]
    except RuntimeError as error:
        message = one.w.catalog.endpoint(ENDPOINT).message
        return Outcome(None, "restart", {type(error).__name__: f"{error}\n{message or ''}"})
    return Outcome(answers, None, {})


def _child(root: str, timeline: Timeline, point: str, days_back: int, result: str) -> None:
    # The server of forks that the coordinator started is this one's too: another one would import torch again.
    forkserver._forkserver.ensure_running = resource_tracker.ensure_running  # type: ignore[method-assign]
    os.setsid()
    with open(f"{result}.log", "w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    try:
        with _clock(days_back), opened(Path(root)) as one:
            outcome = go_on(one, timeline, point)
    except Exception as error:  # noqa: BLE001  what the way on raises is what the run is judged by
        reason = "".join(traceback.format_exception(error))
        outcome = Outcome(None, point, {type(error).__name__: reason}, crashed=True)
    Path(f"{result}.part").write_text(json.dumps(outcome.__dict__), encoding="utf-8")
    os.replace(f"{result}.part", result)


def _clock(days_back: int) -> Any:
    import contextlib

    if not days_back:
        return contextlib.nullcontext()
    import time_machine

    return time_machine.travel(time.time() - 86400 * days_back, tick=True)


class Runner:
    """Takes homes on in processes of their own, which are forked and so need no imports."""

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        os.environ.update(FIXED)
        self._forks = multiprocessing.get_context("forkserver")
        self._forks.set_forkserver_preload(["llmops_assets.definitions", "benchmarks.mutation_points", *WARM])

    def run(self, root: Path, point: str, *, days_back: int = 0, kill_after: float | None = None) -> Outcome:
        """Go on from `point` in the home `root`; after `kill_after` seconds all is killed, and begun again from there.

        What is begun again starts at the step that was under way, as the platform's own daemon would.
        """
        result = root.with_name("outcome.json")
        result.unlink(missing_ok=True)
        if kill_after is not None:
            process = self._start(root, point, days_back, result)
            process.join(kill_after)
            if process.is_alive():
                self._kill(process, root)
            elif result.exists():
                return Outcome(**json.loads(result.read_text(encoding="utf-8")))
        process = self._start(root, point, days_back, result)
        process.join(600)
        if process.is_alive():
            self._kill(process, root)
            return Outcome(None, point, {"time": "it did not end within ten minutes"}, crashed=True)
        if not result.exists():
            return Outcome(None, point, {"process": f"it ended with {process.exitcode}"}, crashed=True)
        return Outcome(**json.loads(result.read_text(encoding="utf-8")))

    def _start(self, root: Path, point: str, days_back: int, result: Path) -> Any:
        process = self._forks.Process(
            target=_child, args=(str(root), self.timeline, point, days_back, str(result)), daemon=False
        )
        process.start()
        return process

    def _kill(self, process: Any, root: Path) -> None:
        process.kill()
        process.join()
        stop_what_runs_in(root)


def stop_what_runs_in(root: Path) -> None:
    """Kill every process that has `root` among its arguments or environment: workers and servers of a killed run."""
    own = os.getpid()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == own:
            continue
        try:
            words = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
            where = os.readlink(folder / "cwd")
        except OSError:
            continue
        if str(root).encode() in words or where.startswith(str(root)):
            try:
                os.kill(int(folder.name), signal.SIGKILL)
            except ProcessLookupError:
                continue


def fresh(timeline: Timeline, point: str, work: Path) -> Path:
    """A copy of the home before `point`, for one mutation."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    return copied(timeline.home(point), work / "home")


def as_json(value: Mapping[str, Any]) -> str:
    """One line of JSON, Hangul as it is."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
