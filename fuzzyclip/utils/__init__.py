"""What every room uses and no result depends on: files, ranges of settings, threads."""
