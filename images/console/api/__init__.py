"""The routes of the HTTP interface, a file a concern: each calls one operation."""
