"""docs/scale.md as text: `python benchmarks/scale.py --write` writes it, tests compare it."""

from pathlib import Path

from benchmarks import costs
from fuzzyclip.clip.prompts import ANOMALOUS_STATES, NORMAL_STATES, TEMPLATES
from fuzzyclip.datasets import get_dataset

PAGE = Path(__file__).resolve().parent.parent / "docs/scale.md"
TEXT_OF_PAGE = Path(__file__).with_name("scale.md.template")
#: What `python benchmarks/gpu.py` has printed on a GPU, once somebody had one.
MEASURED = Path(__file__).with_name("gpu.md")
UNMEASURED = "**Not measured yet: none of this has run on a GPU.**"

LARGE = costs.VisionShape(image_size=518, patch_size=14, width=1024, depth=24, embed_dim=768)
TEXT = costs.TextShape(width=768, depth=12, embed_dim=768)
LAYERS, CLUSTERS, CONTEXT = 4, 3, 77
#: The protocols of params.yaml.
PROTOCOLS = {
    "mvtec": "official",
    "visa": "1cls",
    "btad": "official",
    "mpdd": "official",
    "dagm": "test_half",
    "sdd": "dra",
    "dtd": "official",
}
AUXILIARY = ("visa", "mvtec")

#: Assumed, not measured: the share of a GPU's peak that a batched ViT reaches.
EFFICIENCY = 0.5
#: NVIDIA's figures, dense: GA102 whitepaper (fp16 with fp32 sums), H100 SXM data sheet.
GPUS = (
    costs.Device("RTX 3090, fp16", 71e12, 936e9, EFFICIENCY),
    costs.Device("RTX 3090, TF32", 35.6e12, 936e9, EFFICIENCY),
    costs.Device("H100, bf16", 990e12, 3.35e12, EFFICIENCY),
    costs.Device("H100, TF32", 495e12, 3.35e12, EFFICIENCY),
    costs.Device("H100, fp32", 67e12, 3.35e12, EFFICIENCY),
)
#: Measured by `python benchmarks/scale.py` on 2 cores of a server with AVX-512, float32: the
#: fastest of some runs each.
CPU = costs.Device("2 cores, float32", 188e9, float("inf"))
DECODE_SECONDS = {"JPEG": 0.011, "PNG": 0.031}
METRIC_SECONDS = 0.0022
#: Estimate: bytes of a compressed image of 1024 px, as MVTec-AD's archive has them.
IMAGE_BYTES = 1e6


def count_images(name):
    """Test images of a dataset in params.yaml's protocol, as published."""
    protocol = get_dataset(name).protocols[PROTOCOLS[name]]
    counts = [protocol.total] if protocol.total else list(protocol.counts.values())
    return sum(count.test_normal + count.test_anomalous for count in counts)


def list_sizes():
    """Name and number of images: the seven datasets, their sum, a million, a billion."""
    images = {get_dataset(name).title: count_images(name) for name in PROTOCOLS}
    return images | {"all seven": sum(images.values()), "10^6": 10**6, "10^9": 10**9}


def build_table(head, rows):
    """A table in Markdown; the first column is words, the others are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def write_number(value):
    """Three digits, thousands apart."""
    if value >= 1000:
        digits = len(str(int(value))) - 3
        return f"{round(value, -digits):,.0f}"
    return f"{value:.3g}"


def write_bytes(count):
    """Bytes with the unit that leaves one to three digits before the point."""
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{write_number(count)} PB"


def write_hours(seconds):
    """Seconds, minutes, hours, days or years."""
    for limit, unit, length in (
        (100, "s", 1),
        (6000, "min", 60),
        (100 * 3600, "h", 3600),
        (1000 * 86400, "days", 86400),
    ):
        if seconds < limit:
            return f"{seconds / length:.3g} {unit}"
    return f"{write_number(seconds / 365.25 / 86400)} years"


def estimate_tower(device, shape=LARGE, more=0):
    """Seconds an image through the bare tower, and through so many more operations."""
    flops = costs.count_image_flops(shape) + more
    itemsize = 2 if "16" in device.name else 4
    return costs.estimate_seconds(flops, costs.count_image_traffic(shape, itemsize), device)


def estimate_image(device, shape=LARGE):
    """Seconds an image from pixels to map, text cached."""
    layers = costs.count_layer_flops(shape, LAYERS, CLUSTERS)
    return estimate_tower(device, shape, layers + costs.count_map_flops(shape, LAYERS, CLUSTERS))


def build_operations():
    tower = costs.count_image_flops(LARGE)
    attention = 4 * LARGE.depth * LARGE.tokens**2 * LARGE.width
    prompt = costs.count_prompt_flops(TEXT, CONTEXT)
    prompts = (len(NORMAL_STATES) + len(ANOMALOUS_STATES)) * len(TEMPLATES)
    parts = (
        ("image tower, one image", tower),
        ("... of it attention's N^2 part", attention),
        ("EFA's layers, 1 cluster", costs.count_layer_flops(LARGE, LAYERS, 1)),
        (f"EFA's layers, {CLUSTERS} clusters", costs.count_layer_flops(LARGE, LAYERS, CLUSTERS)),
        (
            f"map from mapped tokens, {CLUSTERS} clusters",
            costs.count_map_flops(LARGE, LAYERS, CLUSTERS),
        ),
        ("EFA's layers, one training step of 16 images", costs.count_step_flops(LARGE, LAYERS, 16)),
        (f"one prompt of {CONTEXT} tokens", prompt),
        (f"one text feature, {prompts} prompts", prompts * prompt),
    )
    rows = [
        (name, write_number(count / 1e9), write_number(100 * count / tower))
        for name, count in parts
    ]
    return build_table(("what", "GFLOP", "% of an image"), rows)


def build_disk():
    dtypes = ("float32", "float16", "bfloat16", "int8")
    auxiliary = sum(count_images(name) for name in AUXILIARY)
    rows = []
    for name, images in list_sizes().items():
        sizes = [
            costs.count_store_bytes(LARGE, LAYERS, dtype, "all", images, 0) for dtype in dtypes
        ]
        kept = auxiliary if name == "all seven" else 0
        alone = costs.count_store_bytes(LARGE, LAYERS, "float16", "none", images, 0)
        part = costs.count_store_bytes(LARGE, LAYERS, "float16", "auxiliary", images, kept)
        maps = costs.count_map_bytes(LARGE.image_size, images)
        shown = write_bytes(part) if kept else ""
        rows.append(
            (name, f"{images:,}", *map(write_bytes, sizes), shown, *map(write_bytes, (alone, maps)))
        )
    head = ("dataset", "images", *dtypes, "auxiliary, float16", "none", "maps, float32")
    return build_table(head, rows)


def build_time():
    devices = (*GPUS, CPU)
    rows = [
        (name, *(write_hours(images * estimate_image(device)) for device in devices))
        for name, images in list_sizes().items()
    ]
    return build_table(("dataset", *(device.name for device in devices)), rows)


def build_feed():
    rows = []
    stored = costs.count_feature_bytes(LARGE, LAYERS, "float16")
    for device in (*GPUS, CPU):
        speed = 1 / estimate_image(device)
        rows.append(
            (
                device.name,
                write_number(speed),
                *(write_number(speed * seconds) for seconds in DECODE_SECONDS.values()),
                f"{write_bytes(speed * IMAGE_BYTES)}/s",
                f"{write_bytes(speed * stored)}/s",
            )
        )
    decoders = [f"cores for {kind}" for kind in DECODE_SECONDS]
    return build_table(("device", "images/s", *decoders, "images read", "tokens written"), rows)


def build_training():
    rows = []
    for name, epochs in (("visa", 2), ("mvtec", 2)):
        images = count_images(name)
        layers = epochs * costs.count_step_flops(LARGE, LAYERS, images)
        encoded = images * costs.count_image_flops(LARGE)
        read = epochs * images * costs.count_feature_bytes(LARGE, LAYERS, "float16")
        title = get_dataset(name).title
        rows.append(
            (title, images, *(write_number(flops / 1e12) for flops in (encoded, layers)),
             write_bytes(read))
        )  # fmt: skip
    head = ("auxiliary set", "images", "encoding, TFLOP", "layers, 2 epochs, TFLOP", "tokens read")
    return build_table(head, rows)


def build_metrics():
    rows = []
    for name, images in list_sizes().items():
        exact = 3 * costs.count_map_bytes(LARGE.image_size, images)
        rows.append((name, write_bytes(exact), write_hours(images * METRIC_SECONDS)))
    head = ("dataset", "memory, were it one category", "time, one process")
    return build_table(head, rows)


def build_page():
    """The whole page."""
    fast = next(device for device in GPUS if device.name == "H100, bf16")
    each = estimate_image(fast)
    tower = costs.count_image_flops(LARGE)
    layers = costs.count_layer_flops(LARGE, LAYERS, CLUSTERS)
    extra = layers + costs.count_map_flops(LARGE, LAYERS, CLUSTERS)
    stored = costs.count_feature_bytes(LARGE, LAYERS, "float16")
    month = 30 * 86400
    return TEXT_OF_PAGE.read_text().format(
        layers=LAYERS,
        clusters=CLUSTERS,
        efficiency=round(100 * EFFICIENCY),
        cpu=round(CPU.flops / 1e9),
        jpeg=round(1000 * DECODE_SECONDS["JPEG"]),
        png=round(1000 * DECODE_SECONDS["PNG"]),
        metric=round(1000 * METRIC_SECONDS),
        operations=build_operations(),
        extra=write_number(100 * extra / tower),
        time=build_time(),
        disk=build_disk(),
        auxiliary=" and ".join(get_dataset(name).title for name in AUXILIARY),
        feed=build_feed(),
        file=write_bytes(IMAGE_BYTES),
        training=build_training(),
        rpl=write_number(2 * 2 * costs.count_prompt_flops(TEXT, CONTEXT) / 1e9),
        image=write_bytes(stored),
        embed=write_bytes(costs.count_feature_bytes(LARGE, LAYERS, None)),
        tokens=write_bytes(stored / each),
        again=write_number(1000 * each),
        gpus=write_number(1e9 * each / month),
        cores=write_number(1e9 * DECODE_SECONDS["JPEG"] / month),
        network=write_bytes(1e9 * IMAGE_BYTES / month) + "/s",
        metrics=build_metrics(),
        gpu=MEASURED.read_text().strip() if MEASURED.is_file() else UNMEASURED,
        largest=f"{count_images('dagm') // 10:,}",
    )
