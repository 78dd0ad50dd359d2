import json
import subprocess
import sys
from pathlib import Path

CAMPAIGN = Path(__file__).parents[1] / 'campaign'


def test_a_small_campaign_loses_nothing(tmp_path):
    # `make campaign` runs all of it.
    command = [sys.executable, '-W', 'ignore', CAMPAIGN, '--quick', '--only', 'kills', 'damage', 'operators']
    result = subprocess.run([*command, '--out', tmp_path], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    rows = json.loads((tmp_path / 'campaign.json').read_text())['rows']
    assert sum(row['tried'] for row in rows) > 50
    table = (tmp_path / 'campaign.md').read_text()
    assert all(f'| {row["tried"]} | {row["tried"]} | 0 |' in table for row in rows)


def test_what_goes_wrong_counts_as_lost(tmp_path):
    code = f"""
import sys
sys.path.insert(0, {str(CAMPAIGN)!r})
from base import Campaign

def trial(number):
    return [None, 'wrong'][number] if number < 2 else 1 / 0

row = Campaign({str(tmp_path)!r}).row('what', trial, range(3))
assert (row.tried, row.survived) == (3, 1), row
assert row.lost[0] == '1: wrong' and 'ZeroDivisionError' in row.lost[1], row
"""
    subprocess.run([sys.executable, '-c', code], check=True)
