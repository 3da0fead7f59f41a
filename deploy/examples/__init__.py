"""Examples of what uses the service from outside."""
