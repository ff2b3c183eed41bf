"""Reading checkpoint files safely and finding the state dict in them."""
