"""Which cells to compute next: optimal designs for the targets of a campaign, from the cells it has."""
