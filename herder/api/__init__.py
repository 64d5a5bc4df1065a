"""The HTTP API: one file a route group, and what they share. Decides nothing about jobs; `broker` and `ledger` do."""
