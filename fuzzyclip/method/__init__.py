"""FuzzyCLIP: CSP, EFA and RPL, and what every method of the tables is."""
