"""Read checkpoint files safely: `load.read` returns the weights, program or ONNX file.

`file_kind` identifies a file, `unpickle` opens torch.save's without running code, `state_dict`
finds the generator in it, `weight_norm` and `int8_record` make its weights plain tensors.
"""
