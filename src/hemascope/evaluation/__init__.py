"""A classifier and labelled images → records; draws nothing."""
