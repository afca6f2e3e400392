"""What an endpoint is asked and answers, against its model's training data and against its last good window."""
