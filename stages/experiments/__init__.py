"""The paper's tables and figures as experiments: what they are, running them, showing them."""
