"""The embedded sample: drawn industrial parts and a small CLIP pretrained on them.

For demonstration and tests only, never for inspection: the pictures are drawn by code and the
model has seen nothing else.
"""
