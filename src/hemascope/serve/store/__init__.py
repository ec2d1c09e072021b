"""The store of the review station: samples, cells, people, signatures, and the audit trail."""
