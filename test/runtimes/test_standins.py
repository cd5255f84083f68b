"""The stand-in's own tools: random faults, guards, numbers of another process, the sanitizer."""

import ctypes
import subprocess
import sys

import pytest
import standins

from efv2_ros.runtimes.libdnn import abi


@pytest.fixture
def flush(bpu):
    """`flush()` calls hbSysFlushMem without memory, and returns its code."""
    library = ctypes.CDLL(str(standins.library()))
    return lambda: library.hbSysFlushMem(None, 1)


def test_random_faults_depend_on_the_seed_only(bpu, flush):
    def codes(seed):
        bpu.set(seed=seed, hbSysFlushMem=500, slow_us=0, hang_us=0)
        return [flush() for _ in range(200)]

    assert codes(1) == codes(1) != codes(2)
    usual = flush_without_faults(bpu, flush)
    assert 30 < sum(code != usual for code in codes(3)) < 70  # half of the faults return errors


def flush_without_faults(bpu, flush):
    bpu.set(hbSysFlushMem=0)
    (code,) = {flush() for _ in range(100)}
    return code


def test_a_write_beyond_a_memory_is_counted(bpu):
    library = abi.Libdnn()
    for offset in (-1, 100):
        memory = library.allocate(100)
        ctypes.memset(memory.virAddr, 0, 100)
        library.call("hbSysFlushMem", ctypes.byref(memory), abi.Cache.CLEAN)
        assert bpu["overruns"] == 0
        ctypes.memset(memory.virAddr + offset, 0, 1)
        library.call("hbSysFreeMem", ctypes.byref(memory))
        assert bpu["overruns"] == 1
        bpu.set(overruns=0)


def test_numbers_of_another_process_are_read_and_set(tmp_path):
    program = (
        "import ctypes, sys\n"
        "library = ctypes.CDLL(sys.argv[1])\n"
        "library.standin_set(b'core', ctypes.c_int64(7))\n"
        "library.hbSysFlushMem(None, 1)\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "print(library.standin_get(b'priority'))\n"
    )
    path = tmp_path / "numbers"
    settings = standins.environment(numbers=path, task_limit=5, hbSysFlushMem=1000, hang_us=0)
    with subprocess.Popen(
        [sys.executable, "-c", program, standins.library()],
        env=settings, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout.readline() == "ready\n"
        numbers = standins.Numbers(path)
        assert (numbers["task_limit"], numbers["core"]) == (5, 7)
        assert numbers.faults("hbSysFlushMem") == 1
        numbers.set(priority=9)
        assert process.communicate("\n")[0] == "9\n"


@pytest.mark.parametrize(("size", "status"), [(176, 0), (175, 1)])
def test_the_sanitizer_reports_a_structure_that_is_too_short(tmp_path, size, status):
    variables = standins.sanitizer()
    if variables is None:
        pytest.skip("the compiler has no AddressSanitizer")
    model = standins.bin_model(tmp_path / "model.bin")
    program = (
        "import ctypes, os, sys\n"
        "library = ctypes.CDLL(os.environ['LIBDNN_STANDIN_LIBRARY'])\n"
        "packed = ctypes.c_void_p()\n"
        "files = (ctypes.c_char_p * 1)(os.fsencode(sys.argv[1]))\n"
        "assert not library.hbDNNInitializeFromFiles(ctypes.byref(packed), files, 1)\n"
        "properties = ctypes.create_string_buffer(int(sys.argv[2]))\n"
        "assert not library.hbDNNGetInputTensorProperties(properties, packed, 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, model, str(size)],
        env=variables, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    assert ("AddressSanitizer" in done.stderr) == bool(status)
    assert ("hbDNNGetInputTensorProperties" in done.stderr) == bool(status)
