"""Records in arrays hold the contents of their receipts, merged in any order and after a round trip."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bendscape.sweep.campaign.tiles import TileKey
from bendscape.sweep.store.records import CellError, Receipt, Records, TileRecord

KEY = TileKey(64, (0, 0, 0, 0, 0))


def everything(records: Records) -> dict[TileKey, TileRecord | None]:
    return {key: records.get(key) for key in records}


def receipt(key: TileKey, done: int, failed: int = 0, checksum: int = 0) -> Receipt:
    errors = tuple(error(bit) for bit in range(failed.bit_length()) if failed >> bit & 1)
    computed = (done | failed).bit_count()
    return Receipt(str(key), done, failed, computed, 1.5, "host", 1.8e9, checksum, errors=errors)


def error(bit: int, attempts: int = 1) -> CellError:
    return CellError({"p": 1, "seed": bit}, bit, "ValueError", "no", "Traceback ...", "host", attempts)


def checksum_of(records: Records) -> int:
    known = records.get(KEY)
    assert known is not None
    return known.checksum


keys = st.builds(TileKey, st.sampled_from([32, 64]), st.tuples(*[st.integers(0, 3)] * 5))
masks = st.integers(0, 2**21 - 1)
histories = st.lists(st.builds(receipt, keys, masks, masks), min_size=1, max_size=12)


@given(st.lists(st.tuples(masks, masks), min_size=1, max_size=6))
def test_merging_receipts_never_forgets_a_finished_cell_or_keeps_its_error(
    history: list[tuple[int, int]],
) -> None:
    records, done, touched = Records(), 0, 0
    for finished, failed in history:
        records.add(receipt(KEY, finished, failed & ~finished))
        done, touched = done | finished, touched | finished | failed
    known = records.get(KEY)
    assert known is not None
    assert (known.done, known.failed) == (done, touched & ~done)
    assert {e.bit for e in known.errors} == {bit for bit in range(21) if known.failed >> bit & 1}
    assert known.attempts == len(history)
    assert known.seconds == 1.5 * len(history)


@settings(deadline=None)
@given(histories)
def test_a_snapshot_and_the_lines_of_a_segment_lose_nothing(history: list[Receipt]) -> None:
    records, from_lines = Records(), Records()
    for one in history:
        records.add(one)
        from_lines.add(Receipt.from_json(one.to_json()))
    assert everything(from_lines) == everything(records)
    again = Records.from_bytes(records.to_bytes())
    assert everything(again) == everything(records)
    assert again.errors() == records.errors()
    again.add(receipt(TileKey(128, (5, 0, 7, 0, 1)), 1))  # and it goes on growing
    assert len(everything(again)) == len(everything(records)) + 1


def test_tiles_without_receipts_are_not_recorded() -> None:
    records = Records()
    records.add(receipt(TileKey(64, (2, 0, 1, 0, 3)), 0b101))
    assert records.masks(TileKey(64, (2, 0, 1, 0, 3))) == (0b101, 0)
    for other in (TileKey(64, (2, 0, 1, 0, 2)), TileKey(64, (3, 0, 1, 0, 3)), TileKey(128, (0, 0, 0, 0, 0))):
        assert records.masks(other) == (0, 0)
        assert records.get(other) is None
    assert list(records) == [TileKey(64, (2, 0, 1, 0, 3))]


def test_attempts_of_a_failed_cell_add_up() -> None:
    records = Records()
    for _ in range(3):
        records.add(receipt(KEY, 0, 1))
    assert [e.attempts for e in records.errors()] == [3]


def test_a_checksum_is_kept_while_it_covers_all_finished_cells() -> None:
    part, whole = receipt(KEY, 0b001, checksum=7), receipt(KEY, 0b011, checksum=8)
    for order in ((part, whole), (whole, part)):
        records = Records()
        for one in order:
            records.add(one)
        assert checksum_of(records) == 8, "that of the receipt that has them all, in any order"
    records.add(receipt(KEY, 0b100, checksum=9))
    assert checksum_of(records) == 0, "of cells from two receipts, neither of which saw the other's"


def test_only_fsck_can_revoke_a_finished_cell() -> None:
    records = Records()
    records.add(receipt(KEY, 0b0111, checksum=7))
    records.add(Receipt.from_json(Receipt(str(KEY), done=0b1000, lost=0b0011, checksum=8).to_json()))
    assert records.masks(KEY) == (0b1100, 0)
    assert checksum_of(records) == 0
    records.add(Receipt(str(KEY), done=0b1100, checksum=9))
    assert checksum_of(records) == 9


@pytest.mark.parametrize("end", [0, 100, -1])
def test_a_truncated_snapshot_is_refused(end: int) -> None:
    records = Records()
    records.add(receipt(KEY, 1))
    with pytest.raises(ValueError, match=r"Error|Bad"):
        Records.from_bytes(records.to_bytes()[:end])


def test_masks_of_any_width_fit() -> None:
    records, widths = Records(), (3, 1008, 64, 4096)
    for index, width in enumerate(widths):
        records.add(receipt(TileKey(64, (0, 0, 0, index, 0)), (1 << width) - 1))
    found = [records.masks(TileKey(64, (0, 0, 0, index, 0)))[0].bit_length() for index in range(len(widths))]
    assert tuple(found) == widths
