"""The making of the sample CLIP: `python -m tools.pretrain_sample.pretrain`; needed by no user."""
