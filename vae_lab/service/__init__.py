"""What pages and API do on a host: comparisons, checkups, scans, one at a time; and choices, with undo."""
