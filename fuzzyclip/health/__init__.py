"""Checks of what works in this installation, with advice; they never download."""
