"""A whole herd in processes of its own, used and broken from outside; `python -m tests.e2e.chaos` is the long run."""
