"""Loss terms and their schedules."""
