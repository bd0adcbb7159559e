"""A detector as a file that runs without PyTorch: ONNX and OpenVINO, with all that surrounds CLIP.

Scores of exported models differ from the trained model's where a part of the way stays behind in
Python. Here the whole way from pixels to map and score is in the file, only decoding and resizing
are not, and no file is written before its own results were compared with PyTorch's.

`graph` is what is exported, `export` writes files, `parity` compares, `facts` says what a file
holds, `runtimes` runs it and needs no PyTorch. The packages that this takes come with
`pip install 'fuzzyclip[export]'`. `request` reads and `serving` answers what comes to a server.
"""
