"""A trained FuzzyCLIP as one directory, and what it says of images."""
