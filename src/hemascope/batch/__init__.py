"""Any number of images → one table, here or on a Ray cluster."""
