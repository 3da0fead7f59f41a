"""What runs the service elsewhere: image, compose files, systemd unit, and what the chart is generated from."""
