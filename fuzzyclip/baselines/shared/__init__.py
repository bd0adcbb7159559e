"""Parts that several of the methods have in common; no method imports another's folder."""
