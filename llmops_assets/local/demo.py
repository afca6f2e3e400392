"""The whole loop on example data, through the platform: ingest, train, gate, deploy, compare, promote."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from llmops_assets.local.demo_results import Line, results
from llmops_assets.local.runs import explainer
from llmops_assets.local.stack import REPOSITORY
from llmops_assets.operations.datasets import register_dataset
from llmops_assets.operations.endpoints import want_endpoint
from llmops_assets.operations.specs import load_checked
from llmops_assets.operations.trainings import GATE, request_training
from llmops_assets.records.datasets import SplitsRecord
from llmops_assets.records.evaluation import EvaluationRecord
from llmops_assets.records.experiments import AbReportRecord
from llmops_assets.records.registry import RegisteredModelRecord
from llmops_assets.specs.base import Spec
from llmops_assets.specs.dataset import DatasetSpec, SplitSpec
from llmops_assets.specs.deployment import DeploymentSpec
from llmops_assets.specs.experiment import ExperimentSpec
from llmops_assets.specs.names import training_key
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.wiring import Wiring

if TYPE_CHECKING:
    from openai import OpenAI

    from llmops_assets.local.watch import Outcome, Watcher
    from resources.catalog import Endpoint

SPECS = REPOSITORY / "examples" / "expressway" / "specs"
CORPUS, DESK, FREE = "expressway-corpus@v1", "expressway-desk@v1", "expressway-free@v1"
DATASETS = (CORPUS, DESK, FREE)
MORE_USERS = 120
SALT = "expressway-desk"
"""Gives the simulated users their models, alike in every run: of fifty drawn salts one splits them so unevenly that no
promotion is made on 1,100 users (a clean split at which `experiments/decision.py` is not quiet)."""

S = TypeVar("S", bound=Spec)


class DemoError(RuntimeError):
    """A step of the demo did not end as it must."""


@dataclass(frozen=True)
class Example:
    """A question with its right answer, and whether the model knew it when it was evaluated."""

    question: str
    expected: str
    known: bool

    @property
    def introduction(self) -> str:
        if self.known:
            return "a question of the test split that the tuned model answered rightly in its evaluation:"
        return "one that it answered wrongly there, as so small a model will:"


def examples_of(answers: Sequence[Mapping[str, Any]]) -> list[Example]:
    """The shortest rightly and the shortest wrongly answered question, without those in which something was masked.

    The former comes from the test split, if it has one; the latter from the questions that people wrote freely, if
    there are some: there such a model is weakest.
    """
    rows = [row for row in answers if row.get("correct") is not None and row.get("prompt") and "[" not in row["prompt"]]

    def order(row: Mapping[str, Any]) -> tuple[bool, int, str]:
        elsewhere = row["suite"] != "test"
        return (elsewhere if row["correct"] else not elsewhere), len(row["prompt"]), row["prompt"]

    known = min((row for row in rows if row["correct"]), key=order, default=None)
    unknown = min((row for row in rows if not row["correct"]), key=order, default=None)
    return [
        Example(row["prompt"], row["expected"], bool(row["correct"])) for row in (known, unknown) if row is not None
    ]


@dataclass
class Demo:
    """The steps, each of which does only what is not done yet."""

    wiring: Wiring
    actor: str
    watcher: "Watcher"
    alive: Callable[[], None]
    """Raises when the platform has ended."""
    users: int
    """Simulated users of the A/B test, before more are needed."""
    say: Callable[[str], None]
    announce: Callable[[str], None]
    """Prints the headline of a step."""
    started: float = field(default_factory=time.monotonic)

    def step(self, text: str) -> None:
        self.announce(f"[{time.monotonic() - self.started:5.0f} s] {text}")

    def load(self, name: str, kind: type[S]) -> S:
        """One of the demo's specs."""
        return load_checked(self.wiring, SPECS / f"{name}.yaml", kind)

    def run(self) -> list[Line]:
        self.write_data()
        self.step("registering three dataset versions: a corpus, the desk's conversations, thirty free questions")
        since = self.register()
        self.await_all([(key, "splits", None) for key in DATASETS], since)
        specs = {name: self.load(name, TrainJobSpec) for name in ("base", "tuned", "undertrained")}
        self.step("training: a small Llama from nothing, on the corpus")
        (base,) = self.train([specs["base"]])
        self.step("training: two fine-tunings of it, one long enough, one far too short")
        tuned, undertrained = self.train([specs["tuned"], specs["undertrained"]])
        if tuned.state != "done":
            raise DemoError(f"the tuned model was withheld: {tuned.error} (partition {tuned.partition})")
        if undertrained.state != "withheld":
            raise DemoError(f"the undertrained model was not withheld (partition {undertrained.partition})")
        experiment = self.load("experiment", ExperimentSpec)
        self.serve(base, tuned, experiment)
        self.converse(experiment, tuned)
        self.compare(experiment)
        return results(self.wiring, self.watcher, DATASETS, (base, tuned, undertrained), experiment)

    def write_data(self) -> None:
        from examples.expressway.generate import write

        folder = self.folder
        known = folder / "planted.json"
        if not known.exists():
            self.step(f"writing example data to {folder}")
            folder.mkdir(parents=True, exist_ok=True)
            planted = write(folder).as_dict()
            known.write_text(json.dumps(planted, ensure_ascii=False, indent=1), encoding="utf-8")

    @property
    def folder(self) -> Path:
        return self.wiring.settings.root / "demo"

    def register(self) -> datetime:
        w, since = self.wiring, _now()
        split = SplitSpec(stratify_by="category", group_by="phrasing")
        versions = [
            (
                CORPUS,
                "pretrain_corpus",
                "corpus.jsonl",
                "Manuals, notices and logs of an invented operator",
                SplitSpec(),
            ),
            (DESK, "sft_pair", "conversations.jsonl", "Questions to its service desk, with the desk's answers", split),
            (FREE, "eval_suite", "free_questions.jsonl", "Thirty questions written freely, by hand", SplitSpec()),
        ]
        for key, type_, file, description, split_spec in versions:
            if w.records.find(SplitsRecord, key) is not None:
                continue
            name, version = key.split("@")
            spec = DatasetSpec.model_validate(
                {
                    "name": name,
                    "version": version,
                    "type": type_,
                    "files": [file],
                    "owner": "team:demo",
                    "description": description,
                    "license": "Apache-2.0",
                    "split": split_spec,
                }
            )
            register_dataset(w, self.actor, spec, [str(self.folder / file)])
        return since

    def await_all(self, targets: Sequence[tuple[str, str, tuple[str, str] | None]], since: datetime) -> "list[Outcome]":
        """Wait for (partition, asset, gate); raise DemoError with the asset, partition and check that failed."""
        from llmops_assets.local.watch import Outcome

        outcomes = []
        for partition, asset, gate in targets:
            if self.watcher.finished(partition, asset):
                outcomes.append(Outcome(partition, "done", asset))
                continue
            outcome = self.watcher.wait(
                partition,
                asset,
                since=since,
                gate=gate,
                timeout=1800,
                alive=self.alive,
                explain=explainer(self.wiring, partition) if "|" in partition else None,
            )
            if outcome.state == "failed":
                where = f"asset {outcome.asset}, " if outcome.asset else ""
                raise DemoError(f"{where}partition {partition}: {outcome.error} (run {outcome.run_id})")
            outcomes.append(outcome)
        return outcomes

    def train(self, specs: Sequence[TrainJobSpec]) -> "list[Outcome]":
        """Ask for the trainings that are not there yet, and wait for all."""
        from llmops_assets.local.watch import Outcome, withheld_by

        since = _now()
        outcomes: dict[str, Outcome] = {}
        waiting: list[str] = []
        for spec in specs:
            partition = training_key(spec.dataset_ref, spec.recipe_key())
            objection = withheld_by(self.watcher.checks(partition, GATE[0]), GATE)
            if self.watcher.finished(partition, "registered_model"):
                outcomes[partition] = Outcome(partition, "done", "registered_model")
            elif objection is not None and not self.watcher.busy(partition, "evaluation"):
                outcomes[partition] = Outcome(partition, "withheld", GATE[0], [objection], objection.description)
            else:
                if not self.watcher.busy(partition, "evaluation"):
                    request_training(self.wiring, self.actor, spec)
                waiting.append(partition)
        for outcome in self.await_all([(partition, "registered_model", GATE) for partition in waiting], since):
            outcomes[outcome.partition] = outcome
        return [outcomes[training_key(spec.dataset_ref, spec.recipe_key())] for spec in specs]

    def serve(self, base: "Outcome", tuned: "Outcome", experiment: ExperimentSpec) -> None:
        """Bring the endpoint to the base model, then to both, unless the experiment has already decided."""
        w = self.wiring
        known = {e.name: e for e in w.catalog.endpoints()}.get(experiment.endpoint)
        models = {route["model_ref"] for route in known.routes} if known else set()
        if known and known.state == "live" and {experiment.control, experiment.treatment} == models:
            return
        if any(e.name == experiment.name for e in w.catalog.experiments("concluded")):
            return
        for name, outcome in (("deploy-base", base), ("deploy-tuned", tuned)):
            spec = self.load(name, DeploymentSpec)
            record = w.records.load(RegisteredModelRecord, outcome.partition)
            if record.ref != spec.model_ref:
                raise DemoError(
                    f"{SPECS / name}.yaml deploys {spec.model_ref}, but the demo registered {record.ref}: "
                    "this home holds other models of these names; run the demo on a home of its own (LLMOPS_HOME)"
                )
            if spec.model_ref in models:
                continue
            self.step(f"deploying {spec.model_ref} on endpoint {spec.endpoint}")
            self.deploy(spec)

    def deploy(self, spec: DeploymentSpec) -> None:
        since = _now()
        want_endpoint(self.wiring, self.actor, spec, salt=SALT)
        outcome = self.watcher.wait(spec.endpoint, "deployment", since=since, timeout=600, alive=self.alive)
        if outcome.state != "done":
            raise DemoError(f"asset deployment, partition {spec.endpoint}: {outcome.error} (run {outcome.run_id})")

    def converse(self, experiment: ExperimentSpec, tuned: "Outcome") -> None:
        """Ask each model that the endpoint serves two questions, through the OpenAI client: one that the tuned model
        answered rightly when it was evaluated, and one that it did not."""
        from openai import OpenAI

        self.step("a chat through the gateway, by the OpenAI client")
        client = OpenAI(
            base_url=f"{self.wiring.settings.gateway_url}/v1", api_key=self.wiring.settings.own_key, max_retries=2
        )
        endpoint = self.wiring.catalog.endpoint(experiment.endpoint)
        width = max(len(route["model_ref"]) for route in endpoint.routes)
        for example in self.examples(tuned.partition):
            self.say(example.introduction)
            self.say(f"  {'user':<{width}}  {example.question}\n  {'expected':<{width}}  {example.expected}")
            for variant, route in enumerate(endpoint.routes):
                answer = self.ask(client, endpoint, variant, example.question)
                self.say(f"  {route['model_ref']:<{width}}  {answer}")

    def ask(self, client: "OpenAI", endpoint: "Endpoint", variant: int, question: str) -> str:
        """What one variant of an endpoint answers, asked as a user whom the gateway assigns to it."""
        from openai import OpenAIError

        from llmops_assets.experiments.assignment import assign

        weights = [route["weight"] for route in endpoint.routes]
        user = next(u for u in (f"demo-{i}" for i in range(1000)) if assign(endpoint.salt, u, weights) == variant)
        try:
            answer = client.chat.completions.create(
                model=endpoint.name, messages=[{"role": "user", "content": question}], user=user
            )
        except OpenAIError as error:
            raise DemoError(f"endpoint {endpoint.name} does not answer through the gateway: {error}") from error
        return answer.choices[0].message.content or ""

    def examples(self, partition: str) -> list[Example]:
        """A question that a model answered rightly when it was evaluated, and one that it did not."""
        from llmops_assets.evaluation.answers_file import read_answers

        evaluation = self.wiring.records.load(EvaluationRecord, partition)
        return examples_of(read_answers(evaluation.answers, self.wiring.keys, evaluation.answers_sha256))

    def examples_of_tuned(self) -> list[Example]:
        """The same of the model that the demo promotes."""
        spec = self.load("tuned", TrainJobSpec)
        return self.examples(training_key(spec.dataset_ref, spec.recipe_key()))

    def questions(self) -> list[tuple[str, str]]:
        """(question, right answer) of every test row of the desk."""
        manifest = self.wiring.records.load(SplitsRecord, DESK).manifests["test"]
        rows = self.wiring.store.read(manifest, columns=["messages"])["messages"].to_list()
        return [(messages[-2]["content"], messages[-1]["content"]) for messages in rows]

    def compare(self, experiment: ExperimentSpec) -> None:
        """Run the A/B test with simulated users until it decides, and wait until the endpoint follows."""
        w = self.wiring
        w.catalog.create_experiment(experiment, self.actor)
        users = self.users
        while w.catalog.experiment(experiment.name).decision is None:
            done = w.catalog.exposures(experiment=experiment.name)["user"].n_unique()
            if done >= self.users + 5 * MORE_USERS:
                record = w.records.find(AbReportRecord, experiment.name)
                why = record.reason if record else "it was never analysed"
                raise DemoError(f"asset ab_report, partition {experiment.name}: no decision after {done} users: {why}")
            batch = max(users - done, MORE_USERS)
            self.step(f"A/B test: {batch} simulated users ask and rate, after {done} before them")
            self.simulate(experiment, first_user=done, users=batch)
            self.await_decision(experiment, _now())
        decided = w.catalog.experiment(experiment.name)
        self.step(f"the A/B test decided: {decided.decision} ({decided.reason})")
        if decided.decision != "promote":
            raise DemoError(f"asset ab_report, partition {experiment.name}: {decided.decision}: {decided.reason}")
        self.await_switch(experiment)

    def simulate(self, experiment: ExperimentSpec, *, first_user: int, users: int) -> None:
        from examples.expressway.users import simulate

        printed_at = 0.0

        def progress(done: int, total: int) -> None:
            nonlocal printed_at
            if time.monotonic() - printed_at > 5 or done == total:
                printed_at = time.monotonic()
                self.say(f"  {done}/{total} answers")

        summary = simulate(
            self.wiring.settings.gateway_url,
            experiment.endpoint,
            self.questions(),
            users=users,
            questions_per_user=2,
            # The servers batch what they are asked at once; the longest right answer has 65 tokens.
            concurrency=8,
            max_tokens=80,
            first_user=first_user,
            progress=progress,
        )
        if summary.failed == summary.requests:
            raise DemoError(f"endpoint {experiment.endpoint} answered no request: {summary.first_error}")

    def await_decision(self, experiment: ExperimentSpec, asked_until: datetime) -> None:
        """Wait until there is a decision, or a report that was made once every user's rating window was closed."""
        w, deadline = self.wiring, time.monotonic() + 180
        closed = asked_until + timedelta(hours=experiment.rating_window_hours)
        while time.monotonic() < deadline:
            self.alive()
            if w.catalog.experiment(experiment.name).decision is not None:
                return
            record = w.records.find(AbReportRecord, experiment.name)
            if record is not None and datetime.fromisoformat(record.figures["at"]) >= closed:
                return
            time.sleep(0.5)

    def await_switch(self, experiment: ExperimentSpec) -> None:
        """Wait until the endpoint serves the winner alone, and the checks of that deployment have looked at it.

        The demo stops its platform after this: a check still at work would find no gateway, and fail for that.
        """
        w, deadline = self.wiring, time.monotonic() + 300
        while time.monotonic() < deadline:
            self.alive()
            endpoint = w.catalog.endpoint(experiment.endpoint)
            models = [route["model_ref"] for route in endpoint.routes]
            intent = w.catalog.intents.newest("deploy", endpoint.name)
            acknowledged = intent is None or not intent.is_open
            switched = endpoint.state == "live" and models == [experiment.treatment] and acknowledged
            if switched and not self.watcher.busy(endpoint.name, "deployment"):
                return
            if endpoint.state == "failed":
                raise DemoError(f"asset deployment, partition {endpoint.name}: {endpoint.message}")
            time.sleep(0.5)
        raise DemoError(f"asset deployment, partition {experiment.endpoint}: not switched to {experiment.treatment}")


def _now() -> datetime:
    return datetime.now(UTC)
