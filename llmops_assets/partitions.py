"""The partitions of the graph: dataset versions, recipes, their product, endpoints and experiments."""

import dagster as dg

dataset_versions = dg.DynamicPartitionsDefinition(name="dataset_versions")
recipes = dg.DynamicPartitionsDefinition(name="recipes")
trainings = dg.MultiPartitionsDefinition({"dataset": dataset_versions, "recipe": recipes})
endpoints = dg.DynamicPartitionsDefinition(name="endpoints")
experiments = dg.DynamicPartitionsDefinition(name="experiments")
