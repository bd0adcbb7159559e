"""What goes wrong around the software, tried on purpose: `python -m tools.campaigns`."""
