"""Measurements, each beside its peer in the same run; never part of the tests."""
