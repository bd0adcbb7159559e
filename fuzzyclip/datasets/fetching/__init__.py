"""Getting a dataset's archives: fetched, verified, extracted, arranged."""
