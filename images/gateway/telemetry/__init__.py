"""What the gateway tells others of its requests: log lines and traces, with names and figures and without any text."""
