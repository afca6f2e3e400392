"""Replay before exposure: what users asked lately is asked of a candidate, before anybody gets it."""
