"""The console: the HTTP interface onto the platform's operations."""
