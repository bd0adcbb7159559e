"""What developers run once."""
