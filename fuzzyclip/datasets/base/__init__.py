"""What a dataset is, and the layouts that several of them share."""
