"""The service and the review station: REST, the store, the pages."""
