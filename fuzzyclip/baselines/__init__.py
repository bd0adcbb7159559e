"""FuzzyCLIP's peers in the paper's tables, a folder each behind `fuzzyclip.method.interface`."""
