"""One page to try an endpoint with: no build, no other server, and nothing of it is stored in the browser."""
