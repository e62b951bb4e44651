"""Does the doctor find planted faults? Each kind is planted alone, on a copy of a data set, and looked for.

    python benchmarks/doctor_faults.py DATA… [--seed 0] [--only NAME] [--out results.json]

DATA is a data set in MVTec AD's layout with masks; it is read only. A fault is found where the check that is meant for
it names an image that was touched, or says something of the whole set that it did not say before. Beside found and
missed it prints what each check says of the set as it is: some of it may be true.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from faults import FAULTS, Fault, Tree
from record import write_result

from draem.data.doctor.examine import check_dataset
from draem.data.doctor.findings import Finding
from draem.data.layouts import read_layout
from draem.errors import DataError


def diagnose(root: Path) -> tuple[Finding, ...]:
    """What the doctor finds."""
    return check_dataset(read_layout(root)).findings


def plant(data: Path, fault: Fault, folder: Path, seed: int = 0) -> tuple[Path, set[str]]:
    """Copy a data set into `folder`, which is emptied, and plant a fault; the copy and the names that it touched."""
    root = folder / data.name
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(data, root, copy_function=shutil.copyfile)
    touched = fault.plant(Tree(root, np.random.default_rng(seed)))
    return root, {path.relative_to(root).as_posix() for path in touched}


def is_found(fault: Fault, touched: set[str], before: tuple[Finding, ...], after: tuple[Finding, ...]) -> bool:
    """Whether the check meant for the fault names what was touched, or says what it did not say before."""
    said = {(finding.check, finding.message) for finding in before}
    ours = [finding for finding in after if finding.check == fault.check]
    if touched:
        return any(touched & set(finding.names) for finding in ours)
    return any((finding.check, finding.message) not in said for finding in ours)


def examine(data: Path, faults: tuple[Fault, ...], seed: int) -> dict[str, object]:
    """Plant each fault on a copy of one data set; prints and returns what was found and missed."""
    before = diagnose(data)
    alarms = dict(Counter(finding.check for finding in before))
    print(f"\n{data.name}: as it is: {alarms or 'nothing'}")
    missed = []
    with tempfile.TemporaryDirectory() as folder:
        for fault in faults:
            root, touched = plant(data, fault, Path(folder), seed)
            try:
                found = is_found(fault, touched, before, diagnose(root))
            except DataError as error:
                print(f"  {fault.name}: {error}")
                found = False
            if not found:
                missed.append(fault.name)
    print(f"  found {len(faults) - len(missed)} of {len(faults)}; missed: {', '.join(missed) or 'none'}")
    return {"as_it_is": alarms, "found": len(faults) - len(missed), "faults": len(faults), "missed": missed}


def main() -> None:
    """Examine each data set named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    faults = tuple(fault for fault in FAULTS if options.only in fault.name)
    results = {data.name: examine(data, faults, options.seed) for data in options.data}
    print(f"written: {write_result('doctor_faults', {'seed': options.seed, 'sets': results}, options.out)}")


if __name__ == "__main__":
    main()
