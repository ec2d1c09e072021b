"""A bundle and labelled images → another bundle: calibrated, adapted or in eight bits."""
