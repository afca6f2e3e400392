"""How much a caller may ask: requests a minute, tokens a month, requests at once; in one process, or in many."""
