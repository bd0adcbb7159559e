"""Walking what pydantic checks: every number of a schema, and every number of some plain data."""

from typing import get_args

#: What nobody means: YAML's and JSON's, what overflows to them, and what only looks like a number.
SENSELESS = (*map(float, ("inf", "-inf", "nan")), 1e308, -1e308, 10**18, -(10**18))
#: What pydantic calls a bound; by its own words where another check comes first.
LOW, HIGH = {"minimum", "exclusiveMinimum", "ge", "gt"}, {"maximum", "exclusiveMaximum", "le", "lt"}


def list_unbounded(model):
    """Places of all numbers that a model takes without a bound on either side."""
    schema = model.model_json_schema()
    unbounded, seen = [], set()

    def walk(node, place):
        if "$ref" in node:
            name = node["$ref"].rsplit("/", 1)[1]
            if name not in seen:
                seen.add(name)
                walk(schema["$defs"][name], name)
            return
        number = node.get("type") in ("number", "integer") and not {"const", "enum"} & set(node)
        if number and not (LOW & set(node) and HIGH & set(node)):
            unbounded.append(place)
        for kind in ("anyOf", "oneOf", "prefixItems"):
            for inner in node.get(kind, ()):
                walk(inner, place)
        for name, inner in node.get("properties", {}).items():
            walk(inner, f"{place}.{name}")
        for kind in ("items", "additionalProperties"):
            if isinstance(node.get(kind), dict):
                walk(node[kind], place)

    walk(schema, model.__name__)
    return unbounded


def list_choices(model, name):
    """What a field of a model may be, as it says."""
    return get_args(model.model_fields[name].annotation)


def list_numbers(data, place=()):
    """Places of all numbers in plain data, as tuples of keys."""
    if isinstance(data, dict | list):
        entries = data.items() if isinstance(data, dict) else enumerate(data)
        return [at for key, inner in entries for at in list_numbers(inner, (*place, key))]
    return [place] if isinstance(data, int | float) and not isinstance(data, bool) else []


def put(data, place, value):
    """Set what stands at a place."""
    *sections, last = place
    for section in sections:
        data = data[section]
    data[last] = value
