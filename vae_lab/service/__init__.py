"""What runs on a host: one thing at a time, with progress and cancel."""
