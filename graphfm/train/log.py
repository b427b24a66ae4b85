"""The training log: one JSON object a line."""

import json
import os
from pathlib import Path

LOG_FILE = "log.jsonl"


def append(out: Path, record: dict) -> None:
    """Add a line."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with open(out / LOG_FILE, "a") as file:
            file.write(json.dumps(record) + "\n")
    except OSError as error:
        raise OSError(
            f"cannot write {out / LOG_FILE}: {error}. Choose a folder with room, then start again."
        ) from error


def read(out: str | Path) -> list[dict]:
    """All lines of a run's log; a last line that a killed run left unfinished is passed over."""
    path = Path(out) / LOG_FILE
    records = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def truncate(out: Path, step: int) -> None:
    """Drop lines from `step` on: they were written after the state that is resumed from."""
    path = out / LOG_FILE
    if not path.exists():
        return
    kept = [record for record in read(out) if record["step"] < step]
    partial = path.with_suffix(".tmp")
    partial.write_text("".join(json.dumps(record) + "\n" for record in kept))
    os.replace(partial, path)
