"""Model servers: one protocol, four kinds of what runs them, and who brings them to what is wanted."""
