"""The DVC stages: each reads its declared parameters and files, calls the library, writes files."""
