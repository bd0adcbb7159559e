"""What FuzzyCLIP stands on: a bill of materials, known vulnerabilities, licences.

`sbom` and `audit` run in an environment of their own, `.trust`, whose packages are no part of what
they tell of; `licences` runs in the one that it lists. The Makefile has a command for each.
"""
