"""Makes the files that the package includes besides its code."""
