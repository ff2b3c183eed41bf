"""Which architectures export, in small and as large as their classes make them by themselves."""
