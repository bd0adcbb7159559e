"""The layout of the paper's Tables 2 and 3: which datasets, which models, which tuples."""

#: Order of each printed tuple.
PIXEL_TUPLE = ("pixel_aupro", "pixel_ap", "pixel_f1_max")
IMAGE_TUPLE = ("image_auroc", "image_ap", "image_f1_max")

#: Tables of the paper and the datasets in them, in the paper's order.
TABLES = {"table_2": ("mvtec", "visa"), "table_3": ("btad", "dagm", "dtd", "sdd", "mpdd")}

#: Which auxiliary set's model the paper tests on which dataset (section 3.2).
PAIRS = {"mvtec": "visa", "visa": "mvtec"} | dict.fromkeys(TABLES["table_3"], "visa")
