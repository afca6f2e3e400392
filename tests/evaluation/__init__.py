"""Tests of evaluation, the registry and tracking."""
