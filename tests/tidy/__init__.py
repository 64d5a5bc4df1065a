"""What `tests/test_tidy.py` checks the tree with: pure functions from a file to complaints."""
