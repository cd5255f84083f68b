"""Content of a `.bin` as hb_mapper writes it: what the file says of itself, without a network."""


def bin_file(*, settings=(), sides=(224, 224), classes=1000):
    """Encode runtime.proto's ModelProto: ir_version, graphs and metadata_props_info."""
    height, width = sides
    graph = (
        _bytes(2, b"main")
        + _bytes(4, _value_info(b"data", (1, height, width, 3)))
        + _bytes(5, _value_info(b"output", (1, classes)))
    )
    info = b"".join(
        _bytes(1, _bytes(1, key.encode()) + _bytes(2, value.encode()))
        for key, value in dict(settings).items()
    )
    return _number(1, 1) + _bytes(5, graph) + _bytes(6, info)


def _value_info(name, shape):
    kind = _number(1, 3) + _bytes(2, b"".join(map(_varint, shape)))
    return _bytes(1, name) + _bytes(2, kind)


def _number(field, value):
    return _varint(field << 3) + _varint(value)


def _bytes(field, content):
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(value):
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
