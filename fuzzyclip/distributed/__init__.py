"""The same work on several GPUs and machines, by Ray."""
