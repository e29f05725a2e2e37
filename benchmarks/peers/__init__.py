"""Other libraries on the same images, for the same time, measured in the same way."""
