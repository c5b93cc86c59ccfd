"""One self-contained HTML file of what runs found."""
