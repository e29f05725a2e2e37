"""Makes what the package carries beside its code."""
