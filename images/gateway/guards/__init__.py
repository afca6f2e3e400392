"""What an endpoint's guards look for in requests and answers, and what they decide."""
