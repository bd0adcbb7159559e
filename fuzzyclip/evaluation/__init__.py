"""Metrics of anomaly maps and image scores: exact, streaming, and under a bootstrap."""

#: What an image of a gallery is kept as; one may be several.
KINDS = ("best", "worst", "borderline")
#: In the title of a kept image without a defect.
NORMAL = "normal"
