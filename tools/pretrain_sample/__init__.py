"""How the sample CLIP was made: `python -m tools.pretrain_sample.pretrain`; needed by no user."""
