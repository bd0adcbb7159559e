"""The frozen CLIP: built, filled, frozen, and run."""
