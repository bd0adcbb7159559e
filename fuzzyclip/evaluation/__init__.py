"""Metrics of anomaly maps and image scores: exact, streaming, and under a bootstrap."""
