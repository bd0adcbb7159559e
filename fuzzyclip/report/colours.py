"""The colours of every anomaly map that is drawn: one scale for all pictures of all runs."""

#: From normal to anomalous; readable in gray and without red-green vision.
HEAT = "inferno"
CONTOUR = "#00e5ff"
#: What is drawn black, as a share of the most an anomaly map can be.
FAINTEST = 1e-5
