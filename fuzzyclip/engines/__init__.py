"""Other programs than PyTorch that run the frozen image tower, where they are faster and equal.

`choice` says which runs, `tower_files` keeps the tower as an ONNX file, `runners` runs it,
`equality` compares it with PyTorch, `measuring` times it, `machine` says what an answer holds for.
`onnx_files` writes any graph as ONNX and `sessions` opens it, for whole detectors too.
"""
