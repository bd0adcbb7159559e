"""What several of the methods that FuzzyCLIP is compared with have in common."""
