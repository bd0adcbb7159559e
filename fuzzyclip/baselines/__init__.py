"""Every method of the paper's tables behind one interface, a module each; see `interface`."""
