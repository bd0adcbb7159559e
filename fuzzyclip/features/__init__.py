"""The feature store: what the frozen image tower gives, kept on disk."""
