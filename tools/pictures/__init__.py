"""The pictures of README and docs, made from the results: `python -m tools.pictures`."""
