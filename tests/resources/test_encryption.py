"""What is sealed opens with its key and whole, or not at all."""

import io
import os

import pytest

from resources import encryption
from resources.encryption import FRAME, NO_KEYS, EncryptionError, Keyring, new_key


@pytest.fixture(scope="module")
def keys() -> Keyring:
    return Keyring.parse(new_key())


SIZES = (0, 1, FRAME - 1, FRAME, FRAME + 1, 2 * FRAME, 2 * FRAME + 7)


@pytest.mark.parametrize("size", SIZES)
def test_a_file_of_any_size_is_read_back_whole_and_from_any_place(keys, size):
    data = os.urandom(size)
    sealed, target = keys.seal(data), io.BytesIO()
    keys.copy_sealed(io.BytesIO(data), target)
    assert keys.open(sealed) == keys.open(target.getvalue()) == data
    assert len(target.getvalue()) == len(sealed)
    reader = keys.reader(io.BytesIO(sealed))
    assert reader.seek(0, io.SEEK_END) == size
    for place in (max(0, size - 5), size // 2, 0):
        reader.seek(place)
        assert reader.read() == data[place:]


@pytest.mark.parametrize("size", SIZES)
def test_a_flipped_byte_a_cut_and_swapped_frames_do_not_open(keys, size):
    sealed = keys.seal(os.urandom(size))
    for place in {len(encryption.MAGIC), encryption.HEADER - 1, encryption.HEADER, len(sealed) // 2, len(sealed) - 1}:
        bad = bytearray(sealed)
        bad[place] ^= 1
        with pytest.raises(EncryptionError):
            keys.open(bytes(bad))
    for end in {len(sealed) - 1, encryption.HEADER, encryption.HEADER + FRAME + 16, encryption.HEADER - 3}:
        if end < len(sealed):
            with pytest.raises(EncryptionError):
                keys.open(sealed[:end])
    if size >= 2 * FRAME:
        head, step = encryption.HEADER, FRAME + 16
        first, second = sealed[head : head + step], sealed[head + step : head + 2 * step]
        with pytest.raises(EncryptionError, match="altered"):
            keys.open(sealed[:head] + second + first + sealed[head + 2 * step :])


def test_the_same_bytes_never_look_the_same(keys):
    assert keys.seal(b"x" * 100) != keys.seal(b"x" * 100)


def test_a_wrong_and_a_missing_key_say_which_one_is_wanted(keys):
    sealed, other = keys.seal(b"text"), Keyring.parse(new_key())
    with pytest.raises(EncryptionError, match=f"sealed with key {keys.ids[0]}; the keys here are {other.ids[0]}"):
        other.open(sealed, "chunk a")
    with pytest.raises(EncryptionError, match="set LLMOPS_ENCRYPTION_KEY"):
        NO_KEYS.open(sealed, "chunk a")


def test_the_first_key_seals_and_all_of_them_open(keys):
    second = new_key()
    both = Keyring.parse(f"{second}, {keys.environment()['LLMOPS_ENCRYPTION_KEY']}")
    assert both.open(keys.seal(b"old")) == b"old"
    assert Keyring.parse(second).open(both.seal(b"new")) == b"new"


def test_without_a_key_bytes_pass_as_they_are(keys):
    assert NO_KEYS.seal(b"plain") == NO_KEYS.open(b"plain") == keys.open(b"plain") == b"plain"


@pytest.mark.parametrize("text", ["secret-passphrase", "QUJD", "0" * 63, "é"])
def test_a_key_that_is_none_is_refused_without_being_shown(text):
    with pytest.raises(EncryptionError) as caught:
        Keyring.parse(text)
    assert text not in str(caught.value)


def test_keys_come_from_a_file_and_pass_to_a_worker(tmp_path):
    file = tmp_path / "key"
    file.write_text(new_key() + "\n")
    keys = Keyring.load(None, file)
    assert Keyring.from_environment(keys.environment()).open(keys.seal(b"row")) == b"row"
    assert Keyring.from_environment({"LLMOPS_ENCRYPTION_KEY_FILE": str(file)}).ids == keys.ids
    assert keys.environment()["LLMOPS_ENCRYPTION_KEY"] not in repr(keys)
    with pytest.raises(EncryptionError, match="cannot be read"):
        Keyring.load(None, tmp_path / "none")
    file.write_text("")
    with pytest.raises(EncryptionError, match="is empty"):
        Keyring.load(None, file)
