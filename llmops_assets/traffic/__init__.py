"""What users asked and got, kept by the day: the one source of drift, review and feedback."""
