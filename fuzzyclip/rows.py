"""The rows of every result table: what is compared on the same features."""

#: Row to title, in the order of a table. All but the last are without any training.
ROWS = {
    "precise": "precise prompt",
    "object": 'prompt "object"',
    "stacked": "stacked prompt, tested names",
    "stacked_auxiliary": "stacked prompt, auxiliary names",
    "fuzzyclip": "FuzzyCLIP (CSP, EFA, RPL)",
}
TRAINED = "fuzzyclip"
