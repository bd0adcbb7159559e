"""Looking at every image of a dataset once: the index and its checks."""
