"""The technical documentation of a model version, written from lineage."""
