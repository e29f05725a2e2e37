"""Training speed, compared with other ways to train the same networks on the same images."""
