"""How the gateway speaks to model servers: HTTP/1.1 over connections that are kept."""
