"""Many write to a catalog at once: none waits in vain, nothing is lost, and no two get the same revision."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from resources.catalog import Busy, Catalog, Conflict, Withheld, tables
from tests.resources.samples import deployment, experiment
from tests.resources.writers import ROUNDS

WRITERS = 8


def together(work, count: int = WRITERS) -> list:
    """The results of `work(number)`, called by `count` threads at the same moment."""
    start = threading.Barrier(count)

    def one(number: int):
        start.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def audited(catalog: Catalog, action: str) -> list[dict]:
    return [line for line in catalog.audit_log(limit=100_000) if line["action"] == action]


def test_eight_processes_write_and_nothing_is_lost(url):
    # None of them finds a schema: they open the catalog together, too.
    command = [sys.executable, "-m", "tests.resources.writers", url]
    processes = [
        subprocess.Popen([*command, str(number)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for number in range(WRITERS)
    ]
    answers = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0] * WRITERS, answers
    done = [json.loads(output) for output, _ in answers]
    catalog, every = Catalog(url), WRITERS * ROUNDS

    revisions = sorted(revision for writer in done for revision in writer["revisions"])
    assert revisions == list(range(1, every + 1))
    endpoint = catalog.endpoint("desk")
    assert endpoint.revision == catalog.intents.newest("deploy", "desk").revision == every
    wanted = {line["detail"]["revision"]: line["detail"]["model_ref"] for line in audited(catalog, "endpoint.want")}
    assert wanted.keys() == set(range(1, every + 1)) and wanted[every] == endpoint.spec.model_ref

    for what, action in (
        ("datasets", "dataset.register"),
        ("recipes", "recipe.add"),
        ("experiments", "experiment.create"),
    ):
        new = sorted(one for writer in done for one in writer["new"][what])
        assert len(new) == len(set(new)) == len(audited(catalog, action))
    assert len(catalog.datasets()) == len(catalog.recipes()) == ROUNDS
    assert len(catalog.training_requests()) == every
    assert catalog.request_count(endpoint="desk") == catalog.feedback(endpoint="desk").height == every
    assert len(catalog.experiments("running")) == 1

    closed = sum(writer["acknowledged"] for writer in done)
    assert len(audited(catalog, "compare_suites.done")) == closed
    with catalog.database.read() as connection:
        table = tables.intents
        opened = sa.select(table.c.kind, table.c.key).where(table.c.closed_at.is_(None))
        keys = connection.execute(opened).all()
    assert len(keys) == len(set(keys))


def test_each_of_many_wants_gets_a_revision_of_its_own(catalog):
    # No row is there yet for them to wait at.
    revisions = together(lambda number: catalog.intents.want("deploy", "desk", f"writer-{number}"))
    assert sorted(revisions) == list(range(1, WRITERS + 1))
    assert [i.revision for i in catalog.intents.open()] == [WRITERS]


def test_one_of_many_closes_an_intent_and_one_writes_a_decision(catalog):
    revision = catalog.intents.want("train", "desk@v1|tuned", "kim")
    closed = together(lambda number: catalog.intents.acknowledge("train", "desk@v1|tuned", revision, actor="run"))
    assert sum(closed) == 1 == len(audited(catalog, "train.done"))
    catalog.create_experiment(experiment())
    decided = together(lambda number: catalog.decide_experiment("base-or-tuned", "promote", str(number), {}))
    assert sum(decided) == 1 == len(audited(catalog, "experiment.decide"))
    assert catalog.experiment("base-or-tuned").reason == str(decided.index(True))
    assert sum(together(lambda number: catalog.mark_acted("base-or-tuned"))) == 1
    assert len(audited(catalog, "experiment.act")) == 1


def test_one_of_many_experiments_starts_on_an_endpoint(catalog):
    def start(number: int) -> bool:
        try:
            return catalog.create_experiment(experiment(f"experiment-{number}"))
        except Conflict:
            return False

    assert sum(together(start)) == 1
    assert len(catalog.experiments("running")) == 1 == len(audited(catalog, "experiment.create"))


def test_decisions_and_wishes_on_one_endpoint_do_not_wait_in_a_circle(catalog):
    catalog.want_endpoint(deployment())
    for number in range(WRITERS):
        catalog.create_experiment(experiment(f"experiment-{number}", endpoint=f"desk-{number}"))
    with catalog.database.write("test") as transaction:
        transaction.execute(tables.experiments.update().values(endpoint="desk", state="concluded"))

    def one(number: int) -> None:
        if number % 2:
            catalog.want_endpoint(deployment(f"desk@{number}"))
        name = f"experiment-{number}"
        catalog.decide_experiment(
            name, "promote", "clear", {}, carry_out=lambda e: e.spec.model_copy(update={"model_ref": f"desk@{number}"})
        )
        catalog.conclude_deployment("desk", catalog.endpoint("desk").revision, state="live")

    together(one)
    concluded = catalog.experiments()
    # What another wish came before is on record as such, and everything else was done.
    assert all((e.acted_at is None) != (e.withheld is None) for e in concluded), concluded
    assert catalog.intents.open("deploy") == []
    assert catalog.endpoint("desk").revision == 1 + WRITERS + WRITERS // 2


def test_a_lock_is_held_by_one_at_a_time_and_others_still_write(catalog):
    inside = []

    def work(number: int) -> int:
        with catalog.database.lock("endpoint desk", timeout=60):
            inside.append(number)
            alone = len(inside) == 1
            catalog.log("test", "locked", str(number))
            inside.remove(number)
        return alone

    assert all(together(work))
    assert len(audited(catalog, "locked")) == WRITERS


def test_a_lock_that_is_held_is_waited_for_as_long_as_was_said(catalog):
    with catalog.database.lock("endpoint desk"):
        begun = time.monotonic()
        with pytest.raises(Busy, match=r"lock 'endpoint desk' is held"), catalog.database.lock("endpoint desk", 0.3):
            pass
        assert 0.25 < time.monotonic() - begun < 5
        with catalog.database.lock("endpoint help", timeout=0):
            pass
    with catalog.database.lock("endpoint desk", timeout=0):
        pass


def test_a_lock_goes_with_the_process_that_held_it(url):
    catalog = Catalog(url)
    code = (
        "import sys, time; from resources.catalog import Catalog\n"
        "with Catalog(sys.argv[1]).database.lock('endpoint desk'): print('held', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, url], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(Busy), catalog.database.lock("endpoint desk", timeout=0):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with catalog.database.lock("endpoint desk", timeout=30):
        pass


def test_a_decision_that_cannot_be_carried_out_says_why_and_stops_nobody_else(catalog):
    catalog.create_experiment(experiment("gone", endpoint="vanished"))
    catalog.want_endpoint(deployment())
    catalog.create_experiment(experiment("withdrawn"))
    assert catalog.decide_experiment("gone", "promote", "clear", {}, carry_out=lambda endpoint: endpoint.spec)
    assert "'vanished' is gone" in catalog.experiment("gone").withheld
    refuse = Withheld("desk@1 is affected by erasure 3")
    assert catalog.decide_experiment("withdrawn", "promote", "clear", {}, carry_out=lambda endpoint: refuse)
    assert catalog.experiment("withdrawn").withheld == refuse.reason
    assert catalog.endpoint("desk").revision == 1
    withheld = {line["target"]: line["detail"]["reason"] for line in audited(catalog, "experiment.withheld")}
    assert withheld == {name: catalog.experiment(name).withheld for name in ("gone", "withdrawn")}


def test_a_writer_that_is_killed_leaves_nothing_and_holds_nobody_up(url):
    catalog = Catalog(url)
    catalog.want_endpoint(deployment())
    code = (
        "import sys, time; from resources.catalog import Catalog, tables\n"
        "with Catalog(sys.argv[1]).database.write('killed') as transaction:\n"
        "    transaction.changed(tables.endpoints.update().values(state='live'))\n"
        "    transaction.audit('endpoint.serve', 'desk'); print('written', flush=True); time.sleep(600)"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, url], stdout=subprocess.PIPE, text=True)
    assert writer.stdout.readline() == "written\n"
    # Who reads does not wait for it, and does not get what is not committed.
    assert catalog.endpoint("desk").state == "pending"
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    assert catalog.want_endpoint(deployment("desk@2")).revision == 2
    assert audited(catalog, "endpoint.serve") == []
