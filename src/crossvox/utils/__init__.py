"""Files, documents, locks and colours that every layer shares."""
