"""Backups: a folder of files by their hashes, and for each moment a list of what belongs to it."""
