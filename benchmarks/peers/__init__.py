"""Other libraries, trained on the same images for the same time and measured in the same way."""
