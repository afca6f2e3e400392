"""What models, endpoints and teams cost, and what an improvement cost."""
