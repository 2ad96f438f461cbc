"""What lies in a deployment's folder, described."""
