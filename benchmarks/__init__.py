"""Benchmarks that take too long for the tests: real trainings, measured and plotted."""
