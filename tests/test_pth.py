import os
import pickle
import struct
import sys
from collections import OrderedDict

import numpy as np
import pytest

from kadence._pth import read_pth

pytestmark = pytest.mark.once

MAGIC = 0x1950A86A20F9469CFC6C
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


# The opcodes of pickle protocol 2, by hand: torch need not be there for its names to be written.
def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def integer(value):
    return b"J" + struct.pack("<i", value)


def several(*items):
    return b"(" + b"".join(items) + b"t"


def named(module, name):
    return f"c{module}\n{name}\n".encode()


def storage(key, length, kind="FloatStorage", view=b"N"):
    return several(text("storage"), named("torch", kind), text(key), text("cpu"), integer(length), view) + b"Q"


def tensor(of, offset, shape, strides):
    hooks = named("collections", "OrderedDict") + b")R"
    sizes, steps = several(*map(integer, shape)), several(*map(integer, strides))
    return (
        named("torch._utils", "_rebuild_tensor_v2") + several(of, integer(offset), sizes, steps, b"\x89", hooks) + b"R"
    )


def entries(**tensors):
    items = b"".join(text(name) + value for name, value in tensors.items())
    return b"\x80\x02" + named("collections", "OrderedDict") + b")R(" + items + b"u."


def pth(body, *stored, magic=MAGIC, protocol=1001, system=SYSTEM):
    """A whole file; `stored` are the storages as (key, array)."""
    head = b"".join(pickle.dumps(value, 2) for value in (magic, protocol, system))
    keys = pickle.dumps([key for key, _ in stored], 2)
    data = b"".join(struct.pack("<q", array.size) + array.tobytes() for _, array in stored)
    return head + body + keys + data


SIX = np.arange(6, dtype="<f4")
ONE_TENSOR = pth(entries(w=tensor(storage("k", 6), 0, (2, 3), (3, 1))), ("k", SIX))


@pytest.fixture
def read(tmp_path):
    def read_bytes(data):
        path = tmp_path / "weights.pth"
        path.write_bytes(data)
        return read_pth(path)

    return read_bytes


def test_tensors_come_out_by_name_in_order(read):
    body = entries(
        second=tensor(storage("20", 6), 0, (2, 3), (3, 1)),
        first=tensor(storage("10", 2, "LongStorage"), 0, (), ()),
        transposed=tensor(storage("20", 6), 0, (3, 2), (1, 3)),
        tail=tensor(storage("20", 6), 4, (2,), (1,)),
        empty=tensor(storage("20", 6), 0, (0, 5), (5, 1)),
    )
    arrays = read(pth(body, ("10", np.array([7, 8], "<i8")), ("20", SIX)))
    assert list(arrays) == ["second", "first", "transposed", "tail", "empty"]
    np.testing.assert_array_equal(arrays["second"], SIX.reshape(2, 3))
    np.testing.assert_array_equal(arrays["transposed"], SIX.reshape(2, 3).T)
    np.testing.assert_array_equal(arrays["tail"], [4, 5])
    assert arrays["first"].shape == ()
    assert arrays["first"] == 7
    assert arrays["empty"].shape == (0, 5)
    arrays["second"][0, 0] = 9  # a copy, writable and not shared
    assert arrays["transposed"][0, 0] == 0


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("DoubleStorage", "f8"),
        ("FloatStorage", "f4"),
        ("HalfStorage", "f2"),
        ("LongStorage", "i8"),
        ("IntStorage", "i4"),
        ("ShortStorage", "i2"),
        ("CharStorage", "i1"),
        ("ByteStorage", "u1"),
        ("BoolStorage", "?"),
    ],
)
def test_every_storage_type(read, kind, dtype):
    expected = np.array([0, 1, 1], dtype)
    array = read(pth(entries(w=tensor(storage("k", 3, kind), 0, (3,), (1,))), ("k", expected)))["w"]
    np.testing.assert_array_equal(array, expected)
    assert array.dtype == np.dtype(dtype)


class Evil:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("place", ["body", "first", "keys"])
def test_code_is_refused_by_name_and_not_run(read, tmp_path, protocol, place):
    marker = tmp_path / "it_ran"
    evil = pickle.dumps({"w": Evil(os.system, f"echo > {marker}")}, protocol)
    if place == "body":
        data = pth(evil)
    elif place == "first":
        data = evil + ONE_TENSOR
    else:
        data = pth(entries()).removesuffix(pickle.dumps([], 2)) + evil
    if place == "first" and protocol == 0:
        expected = "must be a .pth file, as torch.save writes it"
    else:
        expected = f"must be a file of tensors and nothing else.*'{os.system.__module__}.system'.*refused and not run"
    with pytest.raises(ValueError, match=expected):
        read(data)
    assert not marker.exists()


@pytest.mark.parametrize(
    "name",
    [
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("torch", "load"),
        ("torch", "BFloat16Storage"),
        ("torch._utils", "_rebuild_parameter"),
        ("collections", "OrderedDict.fromkeys"),
        ("kadence._pth", "read_pth"),
        ("numpy", "dtype"),
    ],
)
def test_all_other_globals_are_refused(read, name):
    with pytest.raises(ValueError, match=f"`path` must be a file of tensors.*'{name[0]}.{name[1]}'"):
        read(pth(entries(w=named(*name))))


def test_a_truncated_file_is_one_error_wherever_it_ends(read):
    read(ONE_TENSOR)
    for end in range(len(ONE_TENSOR)):
        with pytest.raises(ValueError, match=r"^`path` must be .*weights\.pth'\. "):
            read(ONE_TENSOR[:end])


def test_a_damaged_byte_is_an_error_or_another_tensor(read):
    for position in range(len(ONE_TENSOR)):
        for flip in (0x01, 0x80, 0xFF):
            data = bytearray(ONE_TENSOR)
            data[position] ^= flip
            try:
                arrays = read(bytes(data))
            except ValueError as error:
                assert str(error).startswith("`path` must be ")  # noqa: PT017 - either outcome is right
            else:
                assert sum(array.nbytes for array in arrays.values()) <= SIX.nbytes


def test_bytes_after_the_last_storage(read):
    with pytest.raises(ValueError, match="Its storages end at byte"):
        read(ONE_TENSOR + b"\0")


def test_a_zip_file_gets_the_way_out(read):
    with pytest.raises(ValueError, match=r"old format.*zip file.*_use_new_zipfile_serialization=False"):
        read(b"PK\x03\x04" + bytes(100))


@pytest.mark.parametrize("data", [b"", b"not a pickle", pickle.dumps({"w": 1}), pth(entries(), magic=1)])
def test_other_files(read, data):
    with pytest.raises(ValueError, match=r"must be a .pth file, as torch.save writes it"):
        read(data)


@pytest.mark.parametrize("change", [{"protocol": 1000}, {"system": {"little_endian": False}}, {"system": None}])
def test_other_protocols_and_byte_orders(read, change):
    with pytest.raises(ValueError, match="not of protocol 1001 and little-endian"):
        read(pth(entries(), **change))


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (7,), (1,)),
        (1, (6,), (1,)),
        (6, (), ()),
        (0, (2, 3), (4, 1)),
        (0, (2, 3), (1,)),
        (-1, (2,), (1,)),
        (0, (-2,), (1,)),
        (0, (2,), (-1,)),
        (0, (1000, 1000), (0, 0)),
        (0, (0, 2**31 - 1, 2**31 - 1), (1, 1, 1)),
        (0, (1,) * 33, (1,) * 33),
    ],
)
def test_tensors_that_do_not_fit_their_storage(read, offset, shape, strides):
    with pytest.raises(ValueError, match=r"must be a whole, undamaged .pth file"):
        read(pth(entries(w=tensor(storage("k", 6), offset, shape, strides)), ("k", SIX)))


@pytest.mark.parametrize(
    "body",
    [
        entries(w=tensor(storage("k", 2**31 - 1), 0, (2,), (1,))),
        entries(w=tensor(storage("k", 5), 0, (2,), (1,))),
        entries(w=tensor(storage("other", 6), 0, (2,), (1,))),
        entries(w=tensor(storage("k", -6), 0, (2,), (1,))),
        entries(w=tensor(storage("k", 6, view=several(text("k"), integer(0), integer(2))), 0, (2,), (1,))),
        entries(w=tensor(storage("k", 6).replace(named("torch", "FloatStorage"), text("|O")), 0, (2,), (1,))),
        entries(w=tensor(storage("k", 6), 0, (2,), (1,)), x=tensor(storage("k", 6, "IntStorage"), 0, (2,), (1,))),
        entries(w=tensor(storage("k", 6), 0, (2,), (1,)).replace(text("storage"), text("module"))),
    ],
)
def test_storages_that_are_not_there(read, body):
    with pytest.raises(ValueError, match=r"must be a whole, undamaged .pth file"):
        read(pth(body, ("k", SIX)))


def test_many_names_of_one_storage(read):
    """Tied weights share one; a thousand copies of it are an attack on memory."""
    one = storage("0", 1000)
    tied = {f"w{number}": tensor(one, 0, (1000,), (1,)) for number in range(100)}
    body = entries(**tied)
    with pytest.raises(ValueError, match="more than 8 times as large as the file"):
        read(pth(body, ("0", np.zeros(1000, "<f4"))))


def test_a_memo_of_64_gigabytes(read):
    with pytest.raises(ValueError, match="numbers more objects than it has bytes"):
        read(pth(entries(w=b"N" + b"r" + struct.pack("<I", 2**32 - 1))))


@pytest.mark.parametrize(
    "body", [pickle.dumps([1], 2), pickle.dumps({"w": 1}, 2), pickle.dumps({1: 2}, 2), entries(w=text("<f4"))]
)
def test_anything_but_named_tensors(read, body):
    with pytest.raises(ValueError, match="must be a dictionary of tensors by name"):
        read(pth(body))


def test_what_a_pickle_sets_does_not_outlive_the_file(read):
    state = several(b"N", b"}" + text("__defaults__") + several(*[integer(0)] * 4) + b"s")
    body = entries(w=named("torch._utils", "_rebuild_tensor_v2") + state + b"b)R")
    with pytest.raises(ValueError, match="`path` must be"):
        read(pth(body))
    with pytest.raises(ValueError, match="cannot be read"):
        read(pth(entries(w=named("torch._utils", "_rebuild_tensor_v2") + b")R")))


def test_attributes_of_a_state_dict_are_left_behind(read):
    metadata = b"}" + text("_metadata") + b"}s" + b"}" + text("items") + b"Ns" + b"\x86"
    body = entries(w=tensor(storage("k", 6), 0, (6,), (1,))).removesuffix(b".") + metadata + b"b."
    np.testing.assert_array_equal(read(pth(body, ("k", SIX)))["w"], SIX)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_pth(tmp_path / "none.pth")


def test_torch_is_not_needed(read, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # every import of it fails
    np.testing.assert_array_equal(read(ONE_TENSOR)["w"], SIX.reshape(2, 3))


def test_the_same_as_torch(tmp_path):
    torch = pytest.importorskip("torch")
    tensors = OrderedDict(
        weight=torch.arange(24.0).reshape(2, 3, 4).permute(2, 0, 1),
        count=torch.tensor(5),
        half=torch.linspace(0, 1, 7).half()[2:5],
        flags=torch.tensor([True, False]),
    )
    path = tmp_path / "weights.pth"
    torch.save(tensors, path, _use_new_zipfile_serialization=False)
    arrays = read_pth(path)
    assert list(arrays) == list(tensors)
    for name, expected in tensors.items():
        assert arrays[name].tolist() == expected.tolist()
        assert str(arrays[name].dtype) == str(expected.dtype).removeprefix("torch.")
    torch.save(tensors, path)
    with pytest.raises(ValueError, match="This one is a zip file"):
        read_pth(path)
