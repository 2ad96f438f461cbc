"""Plans of a deployment: calibrated, made, fine-tuned, shown."""
