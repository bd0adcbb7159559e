"""Helpers of every room, which no result depends on: files, ranges of settings, threads."""
