"""The way of what users ask and get: from the gateway over a local spool to the catalog, and to Parquet by the day."""
