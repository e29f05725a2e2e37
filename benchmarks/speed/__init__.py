"""Training speed, measured beside other ways to train the same network on the same images."""
