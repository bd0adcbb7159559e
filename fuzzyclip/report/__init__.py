"""The report of an experiment, and the comparison of two, as pages of HTML that need no network."""
