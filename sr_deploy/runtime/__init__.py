"""What runs behind Engine: loaded networks, single frames, streams and the memory budget."""
