"""Small tools that know nothing of the field: files, locks, documents, colours, components."""
