"""From a trained run and new scans to label maps on the scans' own grids."""
