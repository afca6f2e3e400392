"""The partitions of the graph: dataset versions, recipes, their product, studies, endpoints, days, experiments."""

import warnings

import dagster as dg

# Partitioned checks are a preview feature on purpose: an unpartitioned one would let a good version release a bad one.
# Dagster is pinned to the version that the tests have seen them hold with.
warnings.filterwarnings("ignore", message="Specifying a partitions_def on an AssetCheckSpec")

dataset_versions = dg.DynamicPartitionsDefinition(name="dataset_versions")
recipes = dg.DynamicPartitionsDefinition(name="recipes")
trainings = dg.MultiPartitionsDefinition({"dataset": dataset_versions, "recipe": recipes})
studies = dg.DynamicPartitionsDefinition(name="studies")
endpoints = dg.DynamicPartitionsDefinition(name="endpoints")
traffic_days = dg.MultiPartitionsDefinition(
    {"endpoint": endpoints, "day": dg.DailyPartitionsDefinition(start_date="2025-01-01", timezone="UTC", end_offset=1)}
)
experiments = dg.DynamicPartitionsDefinition(name="experiments")
