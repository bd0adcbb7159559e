"""The description of a dataset, and the layouts that several of them share."""
