"""Programs that developers run once."""
