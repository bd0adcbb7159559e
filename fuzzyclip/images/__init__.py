"""Image files: which there are, how they are opened, and the index of a dataset's images."""
