"""Runs one module of CPython's own tests, and writes the ids of those that passed into a file, sorted."""

import sys
import unittest


class Passed(unittest.TextTestResult):
    """Keeps the ids of the tests that passed. A test with a failed subtest has not."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.passed = set()
        self.broken = set()

    def addSuccess(self, test):
        super().addSuccess(test)
        self.passed.add(test.id())

    def addSubTest(self, test, subtest, error):
        super().addSubTest(test, subtest, error)
        if error is not None:
            self.broken.add(test.id())


def without_vsock(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from without_vsock(test)
        elif "VSOCK" not in test.id():
            yield test


def main():
    module, path = sys.argv[1:]
    tests = unittest.defaultTestLoader.loadTestsFromName(module)
    suite = unittest.TestSuite(without_vsock(tests))
    result = unittest.TextTestRunner(verbosity=2, resultclass=Passed).run(suite)
    with open(path, "w") as file:
        for test in sorted(result.passed - result.broken):
            print(test, file=file)


if __name__ == "__main__":
    main()
