"""What `stages.track` records a result with: its choices, its numbers, the store."""
