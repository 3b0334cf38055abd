"""What the repository promises to others: the resource, the chart, the boundaries between its parts."""
