"""What works in this installation and what to do about what does not; never downloads."""
