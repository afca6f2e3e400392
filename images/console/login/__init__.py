"""Logging in at the console, out again, and what a reverse proxy asks about who is logged in."""
