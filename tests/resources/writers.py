"""Writers of a catalog in processes of their own: what one has done, as a line of JSON."""

import json
import sys

from resources.catalog import Catalog, Conflict
from tests.resources.samples import dataset, deployment, experiment, exposure

ROUNDS = 10


def write(url: str, number: int) -> dict:
    """Do a bit of everything, much of it to the same rows as the other writers."""
    catalog, me = Catalog(url), f"writer-{number}"
    new = {"datasets": [], "recipes": [], "experiments": []}
    revisions, acknowledged = [], 0
    for turn in range(ROUNDS):
        key = f"v{turn}"
        if catalog.register_dataset(dataset(key), key, me):
            new["datasets"].append(key)
        if catalog.add_recipe(f"recipe-{turn}", {"method": "lora"}, me):
            new["recipes"].append(turn)
        catalog.request_training(f"desk@{key}", f"recipe-{turn}", me)
        revision = catalog.intents.want("compare_suites", "all", me, {"turn": turn})
        revisions.append(revision)
        acknowledged += catalog.intents.acknowledge("compare_suites", "all", revision, actor=me)
        catalog.want_endpoint(deployment(f"desk@{number}-{turn}"), me)
        catalog.add_exposures([exposure(f"{me}-{turn}")])
        catalog.add_feedback(f"{me}-{turn}", 5)
        try:
            if catalog.create_experiment(experiment(f"experiment-{turn}"), me):
                new["experiments"].append(turn)
        except Conflict:
            continue
    return {"new": new, "revisions": revisions, "acknowledged": acknowledged}


if __name__ == "__main__":
    print(json.dumps(write(sys.argv[1], int(sys.argv[2]))))
