"""The rows of every result table: what is compared on the same features."""

#: The rows of a result, in the order of a table, and what they are.
ROWS = {
    "precise": "precise prompt, no training",
    "object": 'abstract prompt "object", no training',
    "stacked": "stacked prompt of the tested set, no training",
    "stacked_auxiliary": "stacked prompt of the auxiliary set, no training",
    "fuzzyclip": "FuzzyCLIP: CSP + EFA (pixel), CSP + RPL (image)",
}
TRAINED = "fuzzyclip"
