"""`make conformance`: the real packages, unmodified, each in an environment of its own, against a running herd."""
