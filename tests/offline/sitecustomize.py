"""Python imports this at its start wherever this folder is on PYTHONPATH."""

import loopback_only  # noqa: F401 - importing it refuses connections
