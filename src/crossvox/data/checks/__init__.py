"""Every problem of a data set, found before any work is done."""
