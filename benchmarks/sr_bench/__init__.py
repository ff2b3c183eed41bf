"""Measuring what sr-deploy makes: quality by the field's protocol, speed beside PyTorch."""
