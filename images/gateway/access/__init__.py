"""Who calls: API keys, tokens, addresses, and what of an installation's settings decides about them."""
