"""FuzzyCLIP: clustering-driven stacked prompts for zero-shot anomaly detection.

Importing the package costs nothing: each module is imported where it is used.
"""

__version__ = "0.1.0"
