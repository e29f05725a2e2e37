"""What takes too long for the tests: real trainings, measured and shown."""
