"""A toy DINOv2 that timm has by name, and the files that hold one: ONNX, wheel, a hub."""

import hashlib
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import onnx
import timm
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save
from timm.models import vision_transformer
from timm.models._registry import generate_default_cfgs, register_model

from fuzzyclip.towers.known import Wheel
from fuzzyclip.utils.files import compute_sha256

NAME, TAGGED = "timm/toy_dinov2", "timm/toy_dinov2.toy"
MEMBER = "toy_focus/models/toy.onnx"
SIZES = {"patch_size": 14, "embed_dim": 16, "depth": 4, "num_heads": 2, "init_values": 1.0}


def toy_dinov2(pretrained=False, **settings):
    create = vision_transformer._create_vision_transformer
    return create("toy_dinov2", pretrained=pretrained, **(SIZES | {"img_size": 56} | settings))


if not timm.is_model("toy_dinov2"):
    cfg = vision_transformer._cfg(
        hf_hub_id="timm/", input_size=(3, 56, 56), num_classes=0, license="toy-licence"
    )
    toys = generate_default_cfgs({"toy_dinov2.toy": cfg, "toy_dinov2.other": cfg})
    vision_transformer.default_cfgs |= toys
    toy_dinov2.__module__ = vision_transformer.__name__
    vision_transformer.toy_dinov2 = toy_dinov2
    register_model(toy_dinov2)


def draw_state():
    """Tensors of the toy by timm's names, all of them random."""
    torch.manual_seed(1)
    model = timm.create_model("toy_dinov2")
    return {name: torch.randn_like(tensor) for name, tensor in model.state_dict().items()}


def split_state(state):
    """The initializers and nodes (kind, inputs, outputs) that an exporter makes of a state."""
    state = {name: tensor.numpy() for name, tensor in state.items()}
    embeddings, tensors, nodes = "backbone.embeddings.", {}, []
    tensors[f"{embeddings}cls_token"] = state["cls_token"]
    for kind in ("weight", "bias"):
        patches = state[f"patch_embed.proj.{kind}"]
        tensors[f"{embeddings}patch_embeddings.projection.{kind}"] = patches
        tensors[f"backbone.layernorm.{kind}"] = state[f"norm.{kind}"]
    tensors["onnx::Concat_1957"] = state["pos_embed"][:, :1]
    tensors["onnx::Reshape_1962"] = state["pos_embed"][:, 1:]

    def add_linear(name, weight, bias):
        number = len(nodes)
        tensors[f"{name}.bias"] = bias
        tensors[f"onnx::MatMul_{number}"] = weight.T
        nodes.append(("MatMul", (f"in{number}", f"onnx::MatMul_{number}"), (f"product{number}",)))
        inputs = (f"{name}.bias", f"product{number}")
        # an exporter puts the bias on either side
        nodes.append(("Add", inputs[:: 1 if number % 4 else -1], (f"out{number}",)))

    for block in range(SIZES["depth"]):
        own, layer = f"blocks.{block}.", f"backbone.encoder.layer.{block}."
        for number in "12":
            tensors[f"{layer}layer_scale{number}.lambda1"] = state[f"{own}ls{number}.gamma"]
            for kind in ("weight", "bias"):
                tensors[f"{layer}norm{number}.{kind}"] = state[f"{own}norm{number}.{kind}"]
        qkv = [np.split(state[f"{own}attn.qkv.{kind}"], 3) for kind in ("weight", "bias")]
        for part, weight, bias in zip(("query", "key", "value"), *qkv, strict=True):
            add_linear(f"{layer}attention.attention.{part}", weight, bias)
        for name, old in (
            ("attention.output.dense", "attn.proj"),
            *((f"mlp.fc{n}",) * 2 for n in "12"),
        ):
            add_linear(layer + name, state[f"{own}{old}.weight"], state[f"{own}{old}.bias"])
    return tensors, nodes


def save_onnx(state, path):
    tensors, nodes = split_state(state)
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, outputs) for kind, inputs, outputs in nodes],
        "toy",
        [helper.make_tensor_value_info("in0", TensorProto.FLOAT, [1, 16])],
        [helper.make_tensor_value_info("out1", TensorProto.FLOAT, [1, 16])],
        [numpy_helper.from_array(np.ascontiguousarray(a), name) for name, a in tensors.items()],
    )
    onnx.save(helper.make_model(graph), str(path))
    return path


def save_wheel(folder, onnx_file, *more):
    """A wheel that pip takes, with the file in it; `more` are further names with contents."""
    path = folder / "toy_focus-0.1-py3-none-any.whl"
    about = "toy_focus-0.1.dist-info/"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(onnx_file, MEMBER)
        archive.writestr(
            f"{about}METADATA", "Metadata-Version: 2.1\nName: toy-focus\nVersion: 0.1\n"
        )
        archive.writestr(
            f"{about}WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{about}RECORD", "")
        for name, content in more:
            archive.writestr(name, content)
    return path


def describe_wheel(path, onnx_file, tensors_sha256="0" * 64):
    digests = {"sha256": compute_sha256(path), "member_sha256": compute_sha256(onnx_file)}
    return Wheel("toy-focus==0.1", path.name, member=MEMBER, tensors_sha256=tensors_sha256,
                 licence="toy-licence", **digests)  # fmt: skip


class Hub:
    """A Hugging Face hub with one repository's one file, under `url`; `asked` are its requests."""

    def __init__(self, state, filename="model.safetensors"):
        self.body, self.filename = save(state), filename
        self.etag = hashlib.sha256(self.body).hexdigest()
        self.asked = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self.make_handler())
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def stop(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def make_handler(hub):
        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self):
                hub.asked.append(f"{self.command} {self.path}")
                has = self.path.startswith("/timm/toy_dinov2.toy/resolve/")
                has = has and self.path.endswith(f"/{hub.filename}")
                self.send_response(200 if has else 404)
                if has:
                    self.send_header("X-Repo-Commit", "c" * 40)
                    self.send_header("X-Linked-Etag", f'"{hub.etag}"')
                    self.send_header("X-Linked-Size", str(len(hub.body)))
                else:
                    self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("Content-Length", str(len(hub.body) if has else 0))
                self.end_headers()
                if has and self.command == "GET":
                    self.wfile.write(hub.body)

            do_GET = do_HEAD

            def log_message(self, *_):
                pass

        return Handler
