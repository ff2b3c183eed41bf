"""The GPU check: all tests and measurements that need a GPU, in one command."""
